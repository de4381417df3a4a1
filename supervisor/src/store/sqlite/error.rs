//! What SQLite said, as what the store says. Refusals of the schema's own triggers carry a code in their message; all
//! others are told apart by SQLite's extended result code.

use sqlx::error::DatabaseError;

use crate::store::StoreError;
pub(super) use crate::store::subject::Subject;
use crate::store::subject::rule;

const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READ_ONLY: u32 = 8;
const IO: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;
const SHARED_MEMORY_SIZE: u32 = 4874;
const FOREIGN_KEY: u32 = 787;
const PRIMARY_KEY: u32 = 1555;
const UNIQUE: u32 = 2067;

/// The store's word for a failure of SQLite or of its driver.
pub(super) fn failed(error: &sqlx::Error, subject: Option<&Subject>) -> StoreError {
    let text = || error.to_string();
    if let sqlx::Error::Database(database) = error {
        refused(database.as_ref(), subject)
    } else if matches!(error, sqlx::Error::PoolTimedOut) {
        away(text(), "another transaction takes too long, or the machine is overloaded: try again")
    } else if matches!(error, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) {
        away(text(), "the store is closed: start the command or the supervisor again")
    } else if matches!(error, sqlx::Error::Io(_)) {
        away(text(), "check the disk that holds the data directory")
    } else {
        StoreError::Corrupt(text())
    }
}

fn refused(error: &dyn DatabaseError, subject: Option<&Subject>) -> StoreError {
    let message = error.message();
    if let Some(rule) = message.split_once(' ').and_then(|(code, rest)| rule(code, rest, subject)) {
        return rule;
    }
    let code: u32 = error.code().and_then(|c| c.parse().ok()).unwrap_or(0);
    let why = format!("{message} (SQLite {code})");
    match (code, subject) {
        (PRIMARY_KEY | UNIQUE, Some(subject)) => return subject.exists(message),
        (FOREIGN_KEY, Some(subject)) => return subject.orphan(),
        (..) => {}
    }
    // The low byte is the primary code; the rest says more of the same.
    match code & 0xff {
        // The index of the log grows in shared memory, which is a file beside it: it fails for want of room alone.
        IO if code == SHARED_MEMORY_SIZE => StoreError::Full(why),
        BUSY | LOCKED => away(why, "another program has the store open for writing: wait, or stop it"),
        READ_ONLY | CANNOT_OPEN => away(why, "check that the data directory is there and that you may write to it"),
        IO => away(why, "check the disk that holds the data directory, and its free space"),
        FULL => StoreError::Full(why),
        CORRUPT | NOT_A_DATABASE => StoreError::Corrupt(format!("{why}: keep a copy of the file and restore a backup")),
        1..=255 | 0 | 256.. => StoreError::Corrupt(why),
    }
}

pub(super) const fn away(why: String, hint: &'static str) -> StoreError {
    StoreError::Unavailable { why, hint }
}
