//! The device, embeddable in an application.
#![forbid(unsafe_code)]
