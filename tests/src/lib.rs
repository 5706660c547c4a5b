//! A home for the end-to-end tests and the examples. The README's programs are compiled as documentation tests.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
