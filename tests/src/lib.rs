//! Nothing but a home for the end-to-end tests and the examples.
