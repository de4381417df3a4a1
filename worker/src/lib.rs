//! The worker: scans a repository, and does the work of a phase in a leased worktree.

pub mod remediation;
pub mod scan;
