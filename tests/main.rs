//! The tests of the whole: the rules of the house, the tables of the documents, and the built binary at work.

mod docs_tables;
mod house_rules;
mod playground;
