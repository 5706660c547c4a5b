//! The `sealwire` command.
#![forbid(unsafe_code)]

fn main() {}
