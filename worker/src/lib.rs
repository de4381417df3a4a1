//! The worker: scans a repository, and does the work of a phase in a leased worktree.

pub mod builder;
pub mod contact;
pub mod daemon;
pub mod egress;
mod fetch;
pub mod gate;
mod jobs;
pub mod line;
pub mod link;
pub mod phase;
pub mod pool;
pub mod process;
pub mod providers;
pub mod provision;
pub mod remediation;
pub mod runners;
pub mod sandbox;
pub mod scan;
mod surveys;
mod sys;
pub mod upload;
mod watch;
pub mod workspace;
