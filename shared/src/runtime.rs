//! What every process needs at run time: clock and ids, settings, owned tasks and signals, telemetry.

pub mod clock;
pub mod config;
pub mod process;
pub mod telemetry;
