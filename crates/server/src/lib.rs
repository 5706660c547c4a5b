//! The relay, embeddable in an application.
#![forbid(unsafe_code)]
