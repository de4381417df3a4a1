//! The tests of the whole: the rules of the house, the tables of the documents, the embedded engine, and the built
//! binary as a person or a script meets it.

#![allow(clippy::unwrap_used, reason = "a step that cannot be taken must fail its test")]
#![allow(clippy::print_stdout, reason = "a long test tells what it did")]

#[path = "../shared/tests/cases/model.rs"]
#[allow(dead_code, reason = "the pure core reads more of a case than the binary can be asked")]
mod model;
#[path = "../shared/tests/cases/repository.rs"]
mod repository;

mod abuse;
mod agents;
mod bad_input;
mod bad_services;
mod bench;
mod builder_docs;
mod builders;
mod cli_attempts;
mod cli_engine;
mod cli_gate;
mod cli_local;
mod cluster;
mod conformance;
mod demo;
mod disk_full;
mod docs_tables;
mod engine;
mod harness;
mod help;
mod house_rules;
mod kill;
mod leftovers;
mod models;
mod owners;
mod playground;
mod policy_cases;
mod sandbox;
mod stuck;
mod telemetry;
mod transcripts;
