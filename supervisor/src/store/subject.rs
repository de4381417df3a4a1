//! What a statement writes, so that a refusal of the database can name it, and the refusals that every engine's schema
//! knows.

use autopack_shared::domain::ids::RunId;

use super::StoreError;

/// What a statement writes, so that a refusal can name it.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    what: &'static str,
    id: String,
    parent: Option<(&'static str, String)>,
    run: Option<String>,
    unique: Vec<(&'static [&'static str], &'static str, String)>,
}

impl Subject {
    /// A row of its own.
    pub(super) fn new(what: &'static str, id: impl ToString) -> Self {
        Self { what, id: id.to_string(), parent: None, run: None, unique: Vec::new() }
    }

    /// Names the row it hangs on; what is missing when a foreign key is refused.
    pub(super) fn of(mut self, what: &'static str, id: impl ToString) -> Self {
        self.parent = Some((what, id.to_string()));
        self
    }

    /// Names the run whose fence the write needs.
    pub(super) fn in_run(mut self, run: &RunId) -> Self {
        self.run = Some(run.to_string());
        self
    }

    /// Names what else must be unique: what the engine calls it (a column, an index), and how people do.
    pub(super) fn once(mut self, keys: &'static [&'static str], what: &'static str, id: impl ToString) -> Self {
        self.unique.push((keys, what, id.to_string()));
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

    /// The write had no fence.
    pub(super) fn fenced(&self) -> StoreError {
        let scope = self.run.as_ref().map_or_else(|| "run".to_owned(), |run| format!("run/{run}"));
        StoreError::Fenced { scope, held: 0, current: None }
    }

    /// Something that must be unique is there already; `told` is what the engine said of it.
    pub(super) fn exists(&self, told: &str) -> StoreError {
        let other = self.unique.iter().find(|(keys, ..)| keys.iter().any(|key| told.contains(key)));
        let (what, id) = other.map_or((self.what, &self.id), |(_, what, id)| (*what, id));
        StoreError::Exists { what, id: id.clone() }
    }

    /// What the row hangs on is not there.
    pub(super) fn orphan(&self) -> StoreError {
        let (what, id) = self.parent.clone().unwrap_or((self.what, self.id.clone()));
        StoreError::NotFound { what, id }
    }
}

/// A refusal of one of the schema's own triggers, by its code; `rest` says which rule, the statement knows which row.
pub(super) fn rule(code: &str, rest: &str, subject: Option<&Subject>) -> Option<StoreError> {
    match code {
        "AP002" => {
            let unnamed = || StoreError::Fenced { scope: rest.to_owned(), held: 0, current: None };
            Some(subject.map_or_else(unnamed, Subject::fenced))
        }
        "AP003" => {
            let named = |row: &Subject| format!("{} {}: {rest}", row.what, row.id);
            Some(StoreError::IllegalMove(subject.map_or_else(|| rest.to_owned(), named)))
        }
        "AP004" => Some(StoreError::Corrupt(rest.to_owned())),
        _ => None,
    }
}
