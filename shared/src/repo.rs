//! git2 behind a few verbs. Nothing here runs a hook, a filter or the git program, and nothing here writes to a
//! work tree that a builder could have prepared, except through `mirror`.

pub mod collect;
pub mod commit;
pub mod diff;
pub mod disk;
pub mod facts;
pub mod import;
pub mod include;
pub mod judge;
pub mod locate;
mod marks;
pub mod merge;
pub mod mirror;
pub mod open;
pub mod pack;
pub mod raw;
pub mod scratch;
pub mod status;
pub mod tree;
