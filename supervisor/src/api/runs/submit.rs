//! Submitting: a run file becomes a run with its phases, bound to the policy and anchor of its fork commit.

use std::collections::BTreeMap;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::audit::{ORIGIN, PHASE, ROW};
use autopack_shared::domain::budget::{PhaseBudget, RunBudget};
use autopack_shared::domain::ids::{Digest, Oid, RunId};
use autopack_shared::domain::record::{Phase, Principal, Run, RunKind};
use autopack_shared::domain::run_data;
use autopack_shared::domain::run_file::{BuilderSpec, RunFile};
use autopack_shared::domain::state::{PhaseState, RunState};
use autopack_shared::runtime::telemetry::context;
use autopack_shared::wire::pb;

use crate::api::Core;
use crate::director::moves::{Note, note, pin};
use crate::director::run_blocking;
use crate::error::Error;
use crate::hub::RefName;
use crate::policy::PolicyInForce;
use crate::store::{StoreError, Tx};

impl Core {
    /// Records a run, or finds the one that is there with the same file.
    pub(super) async fn submit(
        &self,
        call: pb::SubmitRequest,
        principal: &Principal,
    ) -> Result<pb::SubmitResponse, Error> {
        let (id, file) = self.read_file(&call)?;
        let (fork, target) = self.fork(&call.fork_commit, file.target_ref.as_deref()).await?;
        let registered = self.book.registered().await?;
        let policy = self.book.at_with(fork, file.anchor.as_deref(), &registered).await?;
        let plan_digest = if call.plan_digest.is_empty() { None } else { Some(call.plan_digest.parse::<Digest>()?) };
        let warnings = warnings(fork, &policy);
        let mut tx = self.store.tx(&[]).await?;
        if let Some(found) = tx.run(&id).await? {
            drop(tx);
            let asked = call.insecure_no_sandbox && starts_programs(&file);
            if found.project != self.project || found.file != file || asked != found.tainted {
                return Err(Error::Exists {
                    what: "run",
                    id: id.to_string(),
                    hint: "use another run id (the same file and the same --insecure-no-sandbox attach to it)",
                });
            }
            return Ok(pb::SubmitResponse { run: Some(self.show_run(id.as_str()).await?), created: false, warnings });
        }
        let asked = policy.anchor.as_ref().and_then(IntentionAnchorV2::run_data);
        let run_data = run_data::decide(asked, self.run_data.is_some())?;
        let now = tx.now();
        let tainted = call.insecure_no_sandbox && starts_programs(&file);
        let run = Run {
            id: id.clone(),
            project: self.project.clone(),
            kind: RunKind::Patch,
            state: RunState::Created,
            version: 0,
            fork_commit: fork,
            target_ref: target,
            branch: RefName::run(&id).to_string(),
            policy_digest: policy.policy_digest,
            anchor_digest: policy.anchor_digest,
            anchor: policy.anchor.clone(),
            registered,
            plan_digest,
            lands: None,
            lands_tip: None,
            file,
            author: principal.clone(),
            tainted,
            run_data,
            pause_requested: false,
            budget: RunBudget::default(),
            trace: context::current(),
            reason: None,
            checkout: None,
            created_at: now,
            updated_at: now,
        };
        match insert_run(tx.as_mut(), &run, None).await {
            Ok(()) => tx.commit().await?,
            // Another call was first; what it made is the answer.
            Err(Error::Store(StoreError::Exists { .. })) => drop(tx),
            Err(error) => return Err(error),
        }
        Ok(pb::SubmitResponse { run: Some(self.show_run(id.as_str()).await?), created: true, warnings })
    }

    /// The run file of a call, checked, and the run's name.
    fn read_file(&self, call: &pb::SubmitRequest) -> Result<(RunId, RunFile), Error> {
        let invalid = |field: &str, why: String| Error::Invalid { field: field.to_owned(), why };
        let mut file: RunFile =
            serde_json::from_str(&call.run_file_json).map_err(|e| invalid("run_file", e.to_string()))?;
        file.validate()?;
        if file.phases.iter().any(|p| matches!(p.builder, BuilderSpec::Landing { .. })) {
            return Err(invalid("run_file", "a landing is made by runs land only".to_owned()));
        }
        if file.project.as_ref().is_some_and(|p| *p != self.project) {
            return Err(Error::NotFound { what: "project", id: file.project.map(String::from).unwrap_or_default() });
        }
        let id = match &file.run_id {
            Some(id) => id.clone(),
            // A repeated call finds the run that the first one made.
            None if !call.idempotency_key.is_empty() => {
                RunId::new(format!("run-{}", &Digest::of(call.idempotency_key.as_bytes()).to_hex()[..12]))?
            }
            None => RunId::new(format!("run-{}", self.ids.short()))?,
        };
        file.run_id = Some(id.clone());
        Ok((id, file))
    }

    /// The commit to fork from and the branch to land on.
    pub(super) async fn fork(&self, wanted: &str, target: Option<&str>) -> Result<(Oid, Option<String>), Error> {
        let hub = self.hub.clone();
        let head = run_blocking(move || hub.head()).await?;
        let target = match target {
            Some(name) => Some(RefName::target(name)?.to_string()),
            None => head.branch.clone(),
        };
        if !wanted.is_empty() {
            let (hub, commit): (_, Oid) = (self.hub.clone(), wanted.parse()?);
            run_blocking(move || crate::hub::HubRead::tree_of(hub.as_ref(), commit)).await?;
            return Ok((commit, target));
        }
        if let (Some(name), true) = (&target, target != head.branch) {
            let (hub, name) = (self.hub.clone(), RefName::target(name)?);
            let shown = name.to_string();
            let tip = run_blocking(move || hub.tip(&name)).await?;
            let tip = tip.ok_or(Error::NotFound { what: "branch", id: shown })?;
            return Ok((tip, target));
        }
        let oid = head.oid.ok_or_else(|| Error::Invalid {
            field: "repository".to_owned(),
            why: "it has no commit yet: commit something first".to_owned(),
        })?;
        Ok((oid, target))
    }
}

fn starts_programs(file: &RunFile) -> bool {
    file.phases.iter().any(|p| matches!(p.builder, BuilderSpec::Command { .. } | BuilderSpec::Agent { .. }))
}

/// What the author should know of the policy that will be in force.
pub(super) fn warnings(fork: Oid, policy: &PolicyInForce) -> Vec<String> {
    let mut warnings = Vec::new();
    if policy.policy_source != "commit" {
        let source = policy.policy_source;
        warnings.push(format!("autopack.toml is not in commit {}: the {source} policy is in force", fork.short()));
    }
    if policy.anchor.is_none() {
        warnings.push("there is no anchor: the strict profile is in force".to_owned());
    }
    warnings
}

/// Adds a run with its phases, its audit record and its first event. A landing brings its change with it.
pub(super) async fn insert_run(tx: &mut dyn Tx, run: &Run, change: Option<(Oid, Oid)>) -> Result<(), Error> {
    tx.insert_run(run).await?;
    let mut digests = BTreeMap::from([
        ("fork".to_owned(), run.fork_commit.to_string()),
        ("policy".to_owned(), run.policy_digest.to_string()),
        (ROW.to_owned(), pin(run)?),
        (ORIGIN.to_owned(), pin(&run.origin())?),
    ]);
    for (ordinal, spec) in run.file.phases.iter().enumerate() {
        let phase = Phase {
            run: run.id.clone(),
            id: spec.id.clone(),
            ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
            state: PhaseState::Queued,
            version: 0,
            spec: spec.clone(),
            attempt: 0,
            failed_attempts: 0,
            lost_attempts: 0,
            base: change.map(|(base, _)| base),
            tree: change.map(|(_, tree)| tree),
            decision: None,
            request: None,
            apply: None,
            carry: None,
            feedback: Vec::new(),
            rollback_ordered: false,
            retried: false,
            budget: PhaseBudget::default(),
            reason: None,
            updated_at: run.created_at,
        };
        tx.insert_phase(&phase).await?;
        digests.insert(format!("{PHASE}{}", phase.id), pin(&phase)?);
    }
    if let Some(anchor) = run.anchor_digest {
        digests.insert("anchor".to_owned(), anchor.to_string());
    }
    note(
        tx,
        Note {
            actor: &run.author,
            run: &run.id,
            phase: None,
            op: "run.created".to_owned(),
            object: "run",
            id: run.id.to_string(),
            moved: Some((String::new(), run.state.to_string())),
            digests,
            reason: format!("{} phases", run.file.phases.len()),
            text: Some(format!(
                "run {} created: {} phases on {}",
                run.id,
                run.file.phases.len(),
                run.fork_commit.short()
            )),
        },
    )
    .await
}
