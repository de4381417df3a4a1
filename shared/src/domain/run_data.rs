//! Where the processes of a run keep their own data: which kinds there are, which one a run gets, and what its parts
//! are called in SQL (`coordination.md` 3.9).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{Digest, FencingToken, RunId};
use super::record::{LeasePurpose, Phase};
use super::run_file::BuilderSpec;

/// How the data of one run is kept apart from that of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunDataModel {
    /// An SQLite file on the worker.
    #[default]
    Sqlite,
    /// A schema of its own in the database that the cluster keeps for runs.
    Schema,
    /// A database of its own on that server.
    Database,
}

impl RunDataModel {
    /// The model as JSON shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Schema => "schema",
            Self::Database => "database",
        }
    }

    /// Whether it is [`Self::Sqlite`], which older rows do not mention.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        *self == Self::Sqlite
    }
}

/// The anchor asks for what there is no server for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the anchor asks for pivot_intentions.parallelism_isolation.run_data = {:?}, and there is no run-database server \
     here", .asked.as_str()
)]
pub struct Unoffered {
    /// What the anchor asks for.
    pub asked: RunDataModel,
}

/// What a new run gets. Without a word of the anchor it is a schema where there is a server for runs, else a file; what
/// the anchor asks for is given or refused, and never replaced by something weaker.
///
/// # Errors
/// [`Unoffered`] where a server is asked for and there is none.
pub const fn decide(asked: Option<RunDataModel>, server: bool) -> Result<RunDataModel, Unoffered> {
    match (asked, server) {
        (None, true) => Ok(RunDataModel::Schema),
        (None, false) | (Some(RunDataModel::Sqlite), _) => Ok(RunDataModel::Sqlite),
        (Some(asked @ (RunDataModel::Schema | RunDataModel::Database)), true) => Ok(asked),
        (Some(asked @ (RunDataModel::Schema | RunDataModel::Database)), false) => Err(Unoffered { asked }),
    }
}

/// Whether a lease starts processes that can use a database: programs of the operator, not what is built in.
#[must_use]
pub const fn starts_processes(purpose: LeasePurpose, phase: &Phase, gate_commands: usize) -> bool {
    match (purpose, &phase.spec.builder) {
        (LeasePurpose::Verify, _) => gate_commands > 0,
        (LeasePurpose::Build, BuilderSpec::Command { .. } | BuilderSpec::Agent { .. }) => true,
        (
            LeasePurpose::Build,
            BuilderSpec::Llm { .. }
            | BuilderSpec::Patch { .. }
            | BuilderSpec::Remediation { .. }
            | BuilderSpec::Landing { .. },
        ) => false,
    }
}

/// The SQL names of a run: of a digest, so that no run id is ever part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlNames {
    key: String,
}

impl SqlNames {
    /// Those of a run: from the first 16 hex digits of the SHA-256 of its id.
    #[must_use]
    pub fn of(run: &RunId) -> Self {
        Self { key: Digest::of(run.as_str().as_bytes()).to_hex()[..16].to_owned() }
    }

    /// The 16 hex digits.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The role that owns everything and cannot log in; its schema or database has the same name.
    #[must_use]
    pub fn owner(&self) -> String {
        format!("ap_run_{}", self.key)
    }

    /// The role that logs in during one epoch.
    #[must_use]
    pub fn login(&self, token: FencingToken) -> String {
        // A store that was made anew counts its epochs from 1 again.
        match token.incarnation {
            1 => format!("ap_{}_e{}", self.key, token.epoch),
            other => format!("ap_{}_i{other}_e{}", self.key, token.epoch),
        }
    }

    /// What the login roles of all epochs begin with.
    #[must_use]
    pub fn login_prefix(&self) -> String {
        format!("ap_{}_", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_what_is_asked_for_or_nothing() {
        use RunDataModel::{Database, Schema, Sqlite};
        let table = [
            (None, false, Ok(Sqlite)),
            (None, true, Ok(Schema)),
            (Some(Sqlite), false, Ok(Sqlite)),
            (Some(Sqlite), true, Ok(Sqlite)),
            (Some(Schema), false, Err(Unoffered { asked: Schema })),
            (Some(Schema), true, Ok(Schema)),
            (Some(Database), false, Err(Unoffered { asked: Database })),
            (Some(Database), true, Ok(Database)),
        ];
        for (asked, server, wanted) in table {
            assert_eq!(decide(asked, server), wanted, "{asked:?} {server}");
        }
    }

    #[test]
    fn words_are_those_of_the_json() {
        for model in [RunDataModel::Sqlite, RunDataModel::Schema, RunDataModel::Database] {
            assert_eq!(serde_json::to_value(model).unwrap(), model.as_str());
        }
        assert!(RunDataModel::default().is_sqlite());
    }

    #[test]
    fn names_hold_nothing_of_the_run_id() {
        let names = SqlNames::of(&RunId::new("first").unwrap());
        // sha256("first")
        assert_eq!(names.key(), "a7937b64b8caa58f");
        let token = |incarnation, epoch| FencingToken { incarnation, epoch };
        assert_eq!(names.owner(), "ap_run_a7937b64b8caa58f");
        assert_eq!(names.login(token(1, 7)), "ap_a7937b64b8caa58f_e7");
        assert_eq!(names.login(token(2, 7)), "ap_a7937b64b8caa58f_i2_e7");
        assert!(names.login(token(u32::MAX, u64::MAX)).len() < 64, "PostgreSQL cuts names at 63 bytes");
        assert!(names.login(token(2, 7)).starts_with(&names.login_prefix()));
    }
}
