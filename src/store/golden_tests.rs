//! Written with the tests.
