//! The supervisor: decides who may work, what may land and who must be asked.

pub mod api;
mod census;
pub mod coordination;
pub mod director;
pub mod door;
pub mod drill;
pub mod engine;
pub mod error;
pub mod export;
pub mod hub;
pub mod notify;
pub mod policy;
pub mod replica;
pub mod run_data;
pub mod services;
pub mod store;
pub mod traced;
pub mod workers;
