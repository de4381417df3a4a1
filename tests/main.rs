//! The system tests.

mod engine;
