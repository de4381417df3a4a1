//! The embedded engine whole, without the command line: real repository, real store, real worker over the in-memory
//! link. What a run does, step by step, is proven here; how it looks to a person is proven on the binary.

mod hand;
mod harness;

mod approvals;
mod attempts;
mod bases;
mod budgets;
mod cancel;
mod crowd;
mod forgery;
mod gate;
mod leases;
mod lifecycle;
mod locks;
mod names;
mod provision;
mod quality;
mod quarantine;
mod recovery;
mod session;
mod shortfalls;
mod surveys;
mod transcripts;
mod uploads;
