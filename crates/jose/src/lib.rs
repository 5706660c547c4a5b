//! Issuer tokens and standard JWE, with josekit.
#![forbid(unsafe_code)]
