//! Keys and values, as `coordination.md` 3.2 lists them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use autopack_shared::domain::ids::{RunId, WorkerId};

use crate::coordination::{CoordinationError, LockName, LockOwner};

/// Bytes of a value: they are hints for people and programs, not a store.
const LONGEST: usize = 1024;

/// The names of all keys of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Keys(String);

impl Keys {
    pub(super) fn of(cluster_id: &str) -> Self {
        Self(format!("/autopack/v1/{cluster_id}"))
    }

    pub(super) fn incarnation(&self) -> String {
        format!("{}/meta/incarnation", self.0)
    }

    pub(super) fn director(&self) -> String {
        format!("{}/director", self.0)
    }

    pub(super) fn supervisors(&self) -> String {
        format!("{}/supervisors/", self.0)
    }

    pub(super) fn supervisor(&self, replica: &str) -> String {
        format!("{}{replica}", self.supervisors())
    }

    pub(super) fn workers(&self) -> String {
        format!("{}/workers/", self.0)
    }

    pub(super) fn worker(&self, worker: &WorkerId) -> String {
        format!("{}/workers/{worker}", self.0)
    }

    pub(super) fn locks(&self, kind: &str) -> String {
        format!("{}/locks/{kind}/", self.0)
    }

    pub(super) fn lock(&self, name: &LockName) -> String {
        match name {
            LockName::Run(run) => format!("{}{run}", self.locks("run")),
            LockName::Workspace(run) => format!("{}{run}", self.locks("ws")),
        }
    }
}

/// Whose liveness is kept below the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) incarnation: u32,
    pub(super) cluster: String,
}

/// The director. Its epoch is raised in the store only after the key is taken, and stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DirectorValue {
    pub(super) replica_id: String,
    pub(super) addr: String,
    pub(super) epoch: Option<u64>,
    pub(super) since_rev: i64,
}

/// A live supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SupervisorValue {
    pub(super) addr: String,
    pub(super) version: String,
    /// Milliseconds since 1970; as all times here, only shown.
    pub(super) started: i64,
}

/// A worker session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorkerValue {
    pub(super) session_uuid: String,
    pub(super) host: String,
    pub(super) boot_id: String,
    pub(super) slots: u32,
    pub(super) sandbox_level: String,
    pub(super) via_replica: String,
    pub(super) since: i64,
    /// Absent in what a supervisor of before wrote.
    #[serde(default)]
    pub(super) draining: bool,
    /// As that.
    #[serde(default)]
    pub(super) sandbox_report: (String, i64),
    /// As that.
    #[serde(default)]
    pub(super) quarantine: String,
}

/// A lock of a run or of its workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LockValue {
    pub(super) run_id: RunId,
    pub(super) worker_id: WorkerId,
    pub(super) session_uuid: String,
    pub(super) epoch: u64,
    pub(super) since: i64,
}

impl LockValue {
    pub(super) fn owner(&self) -> LockOwner {
        LockOwner { worker: self.worker_id.clone(), session: self.session_uuid.clone(), epoch: self.epoch }
    }
}

/// A value as it is written.
pub(super) fn written(key: &str, value: &impl Serialize) -> Result<Vec<u8>, CoordinationError> {
    let unusable = |why: String| CoordinationError::Unusable { path: key.to_owned(), why };
    let bytes = serde_json::to_vec(value).map_err(|error| unusable(error.to_string()))?;
    if bytes.len() > LONGEST {
        return Err(unusable(format!("{} bytes are too long for a value, {LONGEST} are the most", bytes.len())));
    }
    Ok(bytes)
}

/// A value as it was read.
pub(super) fn parsed<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, CoordinationError> {
    serde_json::from_slice(bytes).map_err(|error| CoordinationError::Unusable {
        path: key.to_owned(),
        why: format!("it holds something that no autopack wrote ({error})"),
    })
}
