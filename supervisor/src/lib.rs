//! placeholder

pub mod hub;
