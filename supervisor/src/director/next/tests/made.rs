//! Runs and phases for the small world.

use std::collections::BTreeMap;

use autopack_shared::domain::budget::RunBudget;
use autopack_shared::domain::ids::{Digest, Oid, PhaseId, ProjectId, RunId, Timestamp};
use autopack_shared::domain::record::{Phase, Principal, Run, RunKind};
use autopack_shared::domain::run_data::RunDataModel;
use autopack_shared::domain::run_file::{BuilderSpec, PhaseSpec, RunFile, RunLimits, ScopeSpec};
use autopack_shared::domain::state::{PhaseState, RunState};

use crate::director::view::RunView;

fn spec(n: usize, after: Option<usize>) -> PhaseSpec {
    PhaseSpec {
        id: PhaseId::new(format!("p{n}")).unwrap(),
        goal: "x".into(),
        scope: ScopeSpec::default(),
        deliverables: Vec::new(),
        symbols: Vec::new(),
        category: None,
        claimed_risk: None,
        depends_on: after.map(|a| PhaseId::new(format!("p{a}")).unwrap()).into_iter().collect(),
        builder: BuilderSpec::Command { name: None, argv: vec!["true".into()] },
        gate: Vec::new(),
        max_attempts: 2,
        timeout: 60,
        must_change: false,
        limits: RunLimits::default(),
    }
}

fn phase(run: &RunId, spec: PhaseSpec, ordinal: u32) -> Phase {
    Phase {
        run: run.clone(),
        id: spec.id.clone(),
        ordinal,
        state: PhaseState::Queued,
        version: 0,
        spec,
        attempt: 0,
        failed_attempts: 0,
        lost_attempts: 0,
        base: None,
        tree: None,
        decision: None,
        request: None,
        apply: None,
        carry: None,
        feedback: Vec::new(),
        rollback_ordered: false,
        retried: false,
        budget: Default::default(),
        reason: None,
        updated_at: Timestamp::from_millis(0),
    }
}

pub(super) fn view(phases: usize, chained: bool, gate: bool) -> RunView {
    let id = RunId::new("r").unwrap();
    let specs: Vec<PhaseSpec> = (0..phases).map(|n| spec(n, (chained && n > 0).then(|| n - 1))).collect();
    let file = RunFile {
        run_id: None,
        project: None,
        anchor: None,
        target_ref: None,
        phases: specs.clone(),
        limits: RunLimits::default(),
    };
    let run = Run {
        id: id.clone(),
        project: ProjectId::new("p").unwrap(),
        kind: RunKind::Patch,
        state: RunState::Created,
        version: 0,
        fork_commit: Oid::ZERO,
        target_ref: None,
        branch: "refs/heads/autopack/r".into(),
        policy_digest: Digest::of(b""),
        anchor_digest: None,
        anchor: None,
        registered: BTreeMap::new(),
        plan_digest: None,
        lands: None,
        lands_tip: None,
        file,
        author: Principal::system(),
        tainted: false,
        run_data: RunDataModel::Sqlite,
        pause_requested: false,
        budget: RunBudget::default(),
        trace: None,
        reason: None,
        checkout: None,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    };
    RunView {
        phases: specs.into_iter().enumerate().map(|(n, s)| phase(&id, s, u32::try_from(n).unwrap())).collect(),
        run,
        lease: None,
        decisions: BTreeMap::new(),
        requests: BTreeMap::new(),
        applies: BTreeMap::new(),
        commands: Vec::new(),
        project_gate: gate,
    }
}
