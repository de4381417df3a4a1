//! The pure domain: plain data and decisions over it. No clock, no I/O, no other room.

pub mod anchor;
pub mod audit;
pub mod change;
pub mod evaluate;
pub mod gap;
pub mod gate;
pub mod ids;
pub mod parallelism;
pub mod path;
pub mod plan;
pub mod policy;
pub mod project;
pub mod provider;
pub mod provision;
pub mod reason;
pub mod record;
pub mod run_data;
pub mod run_file;
pub mod score;
pub mod secret;
pub mod session;
pub mod state;
pub mod survey;
pub mod trace;
pub mod usage;
