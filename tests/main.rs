//! The tests of the whole: the rules of the house, the tables of the documents, the embedded engine, and the built
//! binary at work.

mod docs_tables;
mod engine;
mod house_rules;
mod playground;
