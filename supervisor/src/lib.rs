//! The supervisor: decides who may work, what may land and who must be asked.

pub mod coordination;
pub mod hub;
pub mod store;
