//! The step function in a small world: every step is performed on plain data by the tables, people and workers answer
//! at random, and every run must come to an end or stand where only a person can move it.

use proptest::prelude::*;

use autopack_shared::domain::ids::{Digest, Oid, PhaseId, RequestId, RowId, WorkerId};
use autopack_shared::domain::record::{Apply, ApplyKind, Lease, Principal, Request};
use autopack_shared::domain::state::RequestEvent;

use super::*;

mod made;

use made::view;

/// A world of one run; `dice` answers for people, workers and the hub.
struct World {
    view: RunView,
    now: Timestamp,
    count: u32,
    dice: std::vec::IntoIter<u8>,
}

impl World {
    fn roll(&mut self, sides: u8) -> Option<u8> {
        self.dice.next().map(|d| d % sides)
    }

    fn index(&self, id: &PhaseId) -> usize {
        self.view.phases.iter().position(|p| p.id == *id).unwrap()
    }

    fn move_phase(&mut self, id: &PhaseId, event: PhaseEvent) {
        let at = self.index(id);
        let phase = &mut self.view.phases[at];
        phase.state = phase.state.next(event).unwrap();
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}-{:04}", self.count)
    }

    fn apply(&mut self, id: &PhaseId, kind: ApplyKind) {
        let row = RowId::new(self.fresh("a")).unwrap();
        let apply = Apply {
            id: row.clone(),
            run: self.view.run.id.clone(),
            phase: id.clone(),
            attempt: 1,
            kind,
            target_ref: "refs/heads/autopack/r".into(),
            old: Oid::ZERO,
            new: Oid::ZERO,
            tree: Oid::ZERO,
            decision: None,
            request: None,
            state: ApplyState::Prepared,
            version: 0,
            decided_at: self.now,
            prepared_at: self.now,
            finished_at: None,
            reason: None,
        };
        self.view.applies.insert(row.clone(), apply);
        let at = self.index(id);
        self.view.phases[at].apply = Some(row);
    }

    fn request(&mut self, id: &PhaseId, tier: u8) {
        let row = RequestId::new(self.fresh("q")).unwrap();
        let request = Request {
            id: row.clone(),
            run: self.view.run.id.clone(),
            phase: id.clone(),
            attempt: 1,
            decision: RowId::new("d").unwrap(),
            tier,
            state: RequestState::Pending,
            version: 0,
            subject_digest: Digest::of(b""),
            base: Oid::ZERO,
            tree: Oid::ZERO,
            target_ref: String::new(),
            violated_paths: Vec::new(),
            justification: String::new(),
            risk_level: String::new(),
            risk_score: 0,
            risk_factors: Vec::new(),
            author: Principal::system(),
            approvers_needed: 1,
            created_at: self.now,
            expires_at: self.now.plus_seconds(3600),
            decided_by: None,
            decided_at: None,
            notes: None,
            reason_code: None,
            carried_from: None,
        };
        self.view.requests.insert(row.clone(), request);
        let at = self.index(id);
        self.view.phases[at].request = Some(row);
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Obey(_) | Step::Land => unreachable!("no commands and no landings in this world"),
            Step::Validate => self.view.run.state = self.view.run.state.next(RunEvent::Validate).unwrap(),
            Step::Revoke(_) => self.view.lease = None,
            Step::Move(id, event, _) => self.move_phase(&id, event),
            Step::MoveRun(event, _) => self.view.run.state = self.view.run.state.next(event).unwrap(),
            Step::Judge(id) => self.judge(&id),
            Step::Rebase(id) => {
                let event = if self.roll(4) == Some(0) { PhaseEvent::Retry } else { PhaseEvent::Rebased };
                self.move_phase(&id, event);
            }
            Step::Expire(id) => {
                let request = self.view.requests.get_mut(&id).unwrap();
                request.state = request.state.next(RequestEvent::TimeOut).unwrap();
            }
            Step::Settle(id) => self.settle(&id),
            Step::Prepare(id) => {
                if self.roll(5) == Some(0) {
                    return self.move_phase(&id, PhaseEvent::Stale);
                }
                let at = self.index(&id);
                if let Some(row) = self.view.phases[at].request.clone() {
                    let request = self.view.requests.get_mut(&row).unwrap();
                    request.state = request.state.next(RequestEvent::Consume).unwrap();
                }
                self.apply(&id, ApplyKind::Patch);
                self.move_phase(&id, PhaseEvent::Prepare);
            }
            Step::PrepareRevert(id) => self.apply(&id, ApplyKind::Revert),
            Step::Drive(row) => {
                let kind = self.view.applies[&row].kind;
                let id = self.view.applies[&row].phase.clone();
                let conflict = kind == ApplyKind::Patch && self.roll(6) == Some(0);
                self.view.applies.get_mut(&row).unwrap().state =
                    if conflict { ApplyState::Conflict } else { ApplyState::Committed };
                match (kind, conflict) {
                    (ApplyKind::Revert, _) => self.rolled_back(&id),
                    (_, true) => self.move_phase(&id, PhaseEvent::Stale),
                    (_, false) => self.move_phase(&id, PhaseEvent::Commit),
                }
            }
            Step::Grant(id, purpose) => self.grant(&id, purpose),
        }
    }

    /// A revert is committed: where it was the gate's and attempts are left, another one follows.
    fn rolled_back(&mut self, id: &PhaseId) {
        let phase = &self.view.phases[self.index(id)];
        let more = (1..phase.spec.max_attempts).contains(&phase.failed_attempts);
        let live = !self.view.run.state.is_terminal() && self.view.run.state != RunState::Cancelling;
        let again = more && live && self.roll(3) != Some(0);
        self.move_phase(id, if again { PhaseEvent::Retry } else { PhaseEvent::RolledBack });
    }

    fn judge(&mut self, id: &PhaseId) {
        if self.view.phases[self.index(id)].state == PhaseState::Collected {
            self.move_phase(id, PhaseEvent::Judge);
        }
        let at = self.index(id);
        self.view.phases[at].request = None;
        match self.roll(6).unwrap_or(0) {
            0 | 1 => self.move_phase(id, PhaseEvent::AutoApprove),
            2 => self.move_phase(id, PhaseEvent::NoChange),
            3 => {
                self.request(id, 4);
                self.move_phase(id, PhaseEvent::Block);
            }
            4 => {
                self.view.phases[at].failed_attempts += 1;
                let more = self.view.phases[at].failed_attempts < self.view.phases[at].spec.max_attempts;
                self.move_phase(id, if more { PhaseEvent::Retry } else { PhaseEvent::Exhaust });
            }
            _ => {
                self.request(id, 3);
                self.move_phase(id, PhaseEvent::AskApproval);
            }
        }
    }

    fn settle(&mut self, id: &PhaseId) {
        let at = self.index(id);
        let state = self.view.request_of(&self.view.phases[at]).unwrap().state;
        let event = match state {
            RequestState::Approved => PhaseEvent::Approve,
            RequestState::Rejected => {
                self.view.phases[at].failed_attempts += 1;
                let more = self.view.phases[at].failed_attempts < self.view.phases[at].spec.max_attempts;
                if more { PhaseEvent::Retry } else { PhaseEvent::Block }
            }
            RequestState::Pending
            | RequestState::Consumed
            | RequestState::TimedOut
            | RequestState::Superseded
            | RequestState::Cancelled
            | RequestState::Revoked => PhaseEvent::Block,
        };
        self.move_phase(id, event);
    }

    fn grant(&mut self, id: &PhaseId, purpose: LeasePurpose) {
        assert!(self.view.lease.is_none(), "one lease a run");
        self.view.run.state = self.view.run.state.next(RunEvent::Grant).unwrap();
        if purpose == LeasePurpose::Build {
            self.move_phase(id, PhaseEvent::Start);
        }
        let row = RowId::new(self.fresh("l")).unwrap();
        self.view.lease = Some(Lease {
            id: row,
            run: self.view.run.id.clone(),
            project: self.view.run.project.clone(),
            phase: id.clone(),
            purpose,
            attempt: 1,
            worker: WorkerId::new("w").unwrap(),
            session: String::new(),
            epoch: 1,
            ws_epoch: 1,
            state: LeaseState::Held,
            version: 0,
            trace: None,
            granted_at: self.now,
            ended_at: None,
            reason: None,
        });
    }

    /// The world answers: a worker reports, a person decides, or time passes. False when nobody has anything to say.
    fn outside(&mut self) -> bool {
        if let Some(lease) = self.view.lease.take() {
            let lost = self.roll(5) == Some(0);
            let ok = self.roll(3) != Some(0);
            self.view.run.state = self.view.run.state.next(RunEvent::LeaseLost).unwrap();
            let at = self.index(&lease.phase);
            match (lease.purpose, lost, ok) {
                (LeasePurpose::Build, true, _) => {
                    self.view.phases[at].lost_attempts += 1;
                    self.move_phase(&lease.phase, PhaseEvent::Retry);
                }
                (LeasePurpose::Build, false, true) => self.move_phase(&lease.phase, PhaseEvent::Collect),
                (LeasePurpose::Build, false, false) => {
                    self.view.phases[at].failed_attempts += 1;
                    let more = self.view.phases[at].failed_attempts < self.view.phases[at].spec.max_attempts;
                    self.move_phase(&lease.phase, if more { PhaseEvent::Retry } else { PhaseEvent::Exhaust });
                }
                (LeasePurpose::Verify, true, _) => {}
                (LeasePurpose::Verify, false, true) => self.move_phase(&lease.phase, PhaseEvent::Pass),
                (LeasePurpose::Verify, false, false) => {
                    self.view.phases[at].failed_attempts += 1;
                    self.move_phase(&lease.phase, PhaseEvent::RollBack);
                }
            }
            return true;
        }
        let pending: Vec<RequestId> = self
            .view
            .requests
            .values()
            .filter(|r| r.state == RequestState::Pending && self.asks(r))
            .map(|r| r.id.clone())
            .collect();
        let Some(id) = pending.first() else { return false };
        let roll = self.roll(4).unwrap_or(0);
        let request = self.view.requests.get_mut(id).unwrap();
        match roll {
            0 | 1 => request.state = request.state.next(RequestEvent::Approve).unwrap(),
            2 => request.state = request.state.next(RequestEvent::Reject).unwrap(),
            _ => self.now = self.now.plus_seconds(4000),
        }
        true
    }

    fn asks(&self, request: &Request) -> bool {
        self.view.phases.iter().any(|p| p.request.as_ref() == Some(&request.id))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_or_waits_for_a_person(phases in 1usize..5, chained: bool, gate: bool, dice in prop::collection::vec(any::<u8>(), 60)) {
        let mut world = World { view: view(phases, chained, gate), now: Timestamp::from_millis(0), count: 0, dice: dice.into_iter() };
        let mut steps = 0;
        loop {
            steps += 1;
            prop_assert!(steps < 5000, "it goes round in circles: {:?}", world.view.run.state);
            if let Some(step) = next_step(&world.view, world.now) {
                world.perform(step);
            } else if !world.outside() {
                break;
            }
        }
        let state = world.view.run.state;
        prop_assert!(state.is_terminal() || state == RunState::Blocked, "stuck in {state}: {:?}", world.view.phases.iter().map(|p| p.state).collect::<Vec<_>>());
        if state == RunState::Succeeded {
            prop_assert!(world.view.phases.iter().all(|p| p.state == PhaseState::Applied));
        }
        prop_assert!(world.view.lease.is_none());
    }
}

#[test]
fn a_prepared_apply_is_finished_before_anything_else() {
    let mut world =
        World { view: view(1, false, false), now: Timestamp::from_millis(0), count: 0, dice: Vec::new().into_iter() };
    world.view.run.state = RunState::Cancelling;
    world.view.phases[0].state = PhaseState::Applying;
    let id = world.view.phases[0].id.clone();
    world.apply(&id, ApplyKind::Patch);
    assert!(matches!(next_step(&world.view, world.now), Some(Step::Drive(_))));
}

#[test]
fn what_the_gate_judges_is_not_built_upon() {
    let mut view = view(2, false, true);
    view.run.state = RunState::Queued;
    view.phases[0].state = PhaseState::Verifying;
    view.phases[1].state = PhaseState::AutoApproved;
    let p0 = view.phases[0].id.clone();
    assert_eq!(next_step(&view, Timestamp::from_millis(0)), Some(Step::Grant(p0, LeasePurpose::Verify)));
}

#[test]
fn an_expired_request_is_never_used() {
    let mut world =
        World { view: view(1, false, false), now: Timestamp::from_millis(0), count: 0, dice: Vec::new().into_iter() };
    world.view.run.state = RunState::Waiting;
    world.view.phases[0].state = PhaseState::Approved;
    let id = world.view.phases[0].id.clone();
    world.request(&id, 3);
    let row = world.view.phases[0].request.clone().unwrap();
    world.view.requests.get_mut(&row).unwrap().state = RequestState::Approved;
    assert_eq!(next_step(&world.view, world.now), Some(Step::Prepare(id)));
    assert_eq!(next_step(&world.view, world.now.plus_seconds(3600)), Some(Step::Expire(row)));
}
