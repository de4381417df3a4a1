//! The policy in force, read from the fork commit and never from the change under judgement (`governance.md` 1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::ids::{Digest, Oid, ProjectId};
use autopack_shared::domain::path::RepoPath;
use autopack_shared::domain::policy::PathClass;
use autopack_shared::domain::project::{ANCHOR_PATH, FILE_NAME, ProjectConfig};
use autopack_shared::domain::record::Phase;
use autopack_shared::domain::run_file::GateCommand;

use crate::director::run_blocking;
use crate::error::Error;
use crate::hub::{Hub, HubError, HubRead as _};
use crate::store::Store;

/// Bytes that a policy file or an anchor may have.
const MAX_POLICY_FILE: usize = 1024 * 1024;

/// Commits whose policy is remembered.
const REMEMBERED: usize = 256;

/// Policy, gate, builders and anchor of one commit.
#[derive(Debug, Clone)]
pub struct PolicyInForce {
    /// `autopack.toml`, or the built-in one.
    pub config: ProjectConfig,
    /// The anchor, if there is one.
    pub anchor: Option<IntentionAnchorV2>,
    /// Digest of the policy.
    pub policy_digest: Digest,
    /// Digest of the anchor.
    pub anchor_digest: Option<Digest>,
    /// Where the policy came from: `commit`, `registered` or `builtin`.
    pub policy_source: &'static str,
    /// Where the anchor came from, likewise, or `none`.
    pub anchor_source: &'static str,
}

impl PolicyInForce {
    /// The gate commands of a phase: the project's, then its own.
    #[must_use]
    pub fn gate_of(&self, phase: &Phase) -> Vec<GateCommand> {
        let project = self.config.gate.commands.iter().map(|command| command.as_command());
        project.chain(phase.spec.gate.iter().cloned()).collect()
    }

    /// The declared paths, where every one of them is P0 or P4: no builder is started for such a phase.
    #[must_use]
    pub fn forbidden_scope(&self, paths: &[String]) -> Option<String> {
        let forbidden = |entry: &String| {
            let path = entry.trim().trim_start_matches("./").trim_end_matches('/');
            match RepoPath::parse(path) {
                Ok(path) => {
                    let key = path.key();
                    matches!(self.config.policy.classify(&key.parts()).0, PathClass::Never | PathClass::Forbidden)
                }
                // What is no path is judged with the change; git's own folder is known already.
                Err(_) => path.split('/').any(|part| part.eq_ignore_ascii_case(".git")),
            }
        };
        (!paths.is_empty() && paths.iter().all(forbidden)).then(|| paths.join(", "))
    }
}

/// Policies by commit.
pub struct PolicyBook {
    project: ProjectId,
    hub: Arc<dyn Hub>,
    store: Arc<dyn Store>,
    // Never held across an await. A commit never changes, a registered copy rarely: the key has its digest.
    known: Mutex<BTreeMap<(Oid, String, Digest), Arc<PolicyInForce>>>,
}

impl PolicyBook {
    /// An empty book over a hub and the registered copies of a project.
    #[must_use]
    pub fn new(project: ProjectId, hub: Arc<dyn Hub>, store: Arc<dyn Store>) -> Self {
        Self { project, hub, store, known: Mutex::new(BTreeMap::new()) }
    }

    /// The policy in force at a commit; `anchor` names another place for the anchor.
    ///
    /// # Errors
    /// [`Error::Policy`] when a file is there and cannot be used: it never falls back to something weaker.
    pub async fn at(&self, commit: Oid, anchor: Option<&str>) -> Result<Arc<PolicyInForce>, Error> {
        let registered = self.registered().await?;
        self.at_with(commit, anchor, &registered).await
    }

    /// The copies that are registered now.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn registered(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut tx = self.store.read().await?;
        Ok(tx.project(&self.project).await?.map(|p| p.registered).unwrap_or_default())
    }

    /// The policy in force at a commit with given copies: those that a run was created under.
    ///
    /// # Errors
    /// As [`PolicyBook::at`].
    pub async fn at_with(
        &self,
        commit: Oid,
        anchor: Option<&str>,
        registered: &BTreeMap<String, String>,
    ) -> Result<Arc<PolicyInForce>, Error> {
        let copies = Digest::of_json(registered).map_err(|e| Error::Bug(e.to_string()))?;
        let anchor_path = anchor.unwrap_or(ANCHOR_PATH).to_owned();
        let key = (commit, anchor_path.clone(), copies);
        if let Some(found) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(found.clone());
        }
        let (hub, path) = (self.hub.clone(), anchor_path.clone());
        let (toml, json) = run_blocking(move || {
            let toml = hub.read_file_at(commit, FILE_NAME, MAX_POLICY_FILE)?;
            Ok::<_, HubError>((toml, hub.read_file_at(commit, &path, MAX_POLICY_FILE)?))
        })
        .await?;
        let policy = Arc::new(read(commit, toml, json, &anchor_path, registered)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, policy.clone());
        Ok(policy)
    }
}

fn read(
    commit: Oid,
    toml: Option<Vec<u8>>,
    json: Option<Vec<u8>>,
    anchor_path: &str,
    registered: &BTreeMap<String, String>,
) -> Result<PolicyInForce, Error> {
    let bad = |file: &str, why: String| Error::Policy { file: file.to_owned(), commit: commit.short(), why };
    let text =
        |file: &str, bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| bad(file, "it is not UTF-8".to_owned()));
    let (config, policy_source) = match (toml, registered.get(FILE_NAME)) {
        (Some(bytes), _) => (
            ProjectConfig::parse(&text(FILE_NAME, bytes)?, FILE_NAME).map_err(|e| bad(FILE_NAME, e.to_string()))?,
            "commit",
        ),
        (None, Some(copy)) => {
            (ProjectConfig::parse(copy, FILE_NAME).map_err(|e| bad(FILE_NAME, e.to_string()))?, "registered")
        }
        (None, None) => (ProjectConfig::default(), "builtin"),
    };
    let (anchor, anchor_source) = match (json, registered.get(anchor_path)) {
        (Some(bytes), _) => {
            let anchor =
                IntentionAnchorV2::parse(&text(anchor_path, bytes)?).map_err(|e| bad(anchor_path, e.to_string()))?;
            (Some(anchor), "commit")
        }
        (None, Some(copy)) => {
            (Some(IntentionAnchorV2::parse(copy).map_err(|e| bad(anchor_path, e.to_string()))?), "registered")
        }
        (None, None) => (None, "none"),
    };
    let policy_digest = config.policy.digest();
    let anchor_digest = anchor.as_ref().map(IntentionAnchorV2::digest);
    Ok(PolicyInForce { config, anchor, policy_digest, anchor_digest, policy_source, anchor_source })
}
