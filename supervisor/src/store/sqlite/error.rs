//! What SQLite said, as what the store says. Refusals of the schema's own triggers carry a code in their message; all
//! others are told apart by SQLite's extended result code.

use sqlx::error::DatabaseError;

use crate::store::StoreError;

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

/// What a statement writes, so that a refusal can name it.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    what: &'static str,
    id: String,
    parent: Option<(&'static str, String)>,
    unique: Vec<(&'static str, &'static str, String)>,
}

impl Subject {
    /// A row of its own.
    pub(super) fn new(what: &'static str, id: impl ToString) -> Self {
        Self { what, id: id.to_string(), parent: None, unique: Vec::new() }
    }

    /// Names the row it hangs on; what is missing when a foreign key is refused.
    pub(super) fn of(mut self, what: &'static str, id: impl ToString) -> Self {
        self.parent = Some((what, id.to_string()));
        self
    }

    /// Names what else must be unique: the column as SQLite names it, and how people do.
    pub(super) fn once(mut self, column: &'static str, what: &'static str, id: impl ToString) -> Self {
        self.unique.push((column, what, id.to_string()));
        self
    }

    /// The row is not there.
    pub(super) fn not_found(&self) -> StoreError {
        StoreError::NotFound { what: self.what, id: self.id.clone() }
    }

    /// The row has moved on.
    pub(super) fn conflict(&self, expected: u64) -> StoreError {
        StoreError::Conflict { what: self.what, id: self.id.clone(), expected }
    }

    fn exists(&self, message: &str) -> StoreError {
        let other = self.unique.iter().find(|(column, ..)| message.contains(column));
        let (what, id) = other.map_or((self.what, &self.id), |(_, what, id)| (*what, id));
        StoreError::Exists { what, id: id.clone() }
    }

    fn orphan(&self) -> StoreError {
        let (what, id) = self.parent.clone().unwrap_or((self.what, self.id.clone()));
        StoreError::NotFound { what, id }
    }
}

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
    if let Some(rule) = rule(message) {
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

/// A refusal of one of the schema's own triggers.
fn rule(message: &str) -> Option<StoreError> {
    let (code, rest) = message.split_once(' ')?;
    match code {
        "AP002" => Some(StoreError::Fenced { scope: rest.to_owned(), held: 0, current: None }),
        "AP003" => Some(StoreError::IllegalMove(rest.to_owned())),
        "AP004" => Some(StoreError::Corrupt(rest.to_owned())),
        _ => None,
    }
}

pub(super) const fn away(why: String, hint: &'static str) -> StoreError {
    StoreError::Unavailable { why, hint }
}
