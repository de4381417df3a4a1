//! The session file of an autopilot run: how it is found again after the process that wrote it is gone, and how it
//! moves.

use std::path::Path;

use autopack_shared::domain::ids::{Oid, RunId, Timestamp};
use autopack_shared::domain::plan::{PlanProposalV1, Work, work_of};
use autopack_shared::domain::run_file::RunLimits;
use autopack_shared::domain::session::{AutopilotSessionV1, SessionError, SessionStatus};
use autopack_shared::wire::pb::Run;

use crate::artifact::RunDir;
use crate::exit::CliError;
use crate::survey::PLAN;

/// The folder of a run's sessions.
const FOLDER: &str = "autopilot";

/// A session and where it is kept.
#[derive(Debug)]
pub(super) struct Journal {
    // None where nothing is kept.
    dir: Option<RunDir>,
    /// The session.
    pub(super) session: AutopilotSessionV1,
}

impl Journal {
    /// A new session over a plan; not yet written.
    pub(super) fn begin(
        dir: Option<RunDir>,
        id: &str,
        plan: &PlanProposalV1,
        enabled: bool,
        base: Oid,
        now: Timestamp,
    ) -> Self {
        let mut session = AutopilotSessionV1::begin(format!("autopilot-{id}"), plan, enabled, now);
        session.base_commit = Some(base.to_string());
        Self { dir, session }
    }

    /// The newest session of a run, if it has one.
    pub(super) fn of_run(data_dir: &Path, run: &RunId) -> Option<Self> {
        let dir = RunDir::new(data_dir, run);
        let sessions =
            dir.list(FOLDER).into_iter().filter(|name| name.starts_with("session_") && name.ends_with(".json"));
        let read = |name: String| dir.read_json::<AutopilotSessionV1>(&format!("{FOLDER}/{name}"));
        let newest = sessions.filter_map(read).max_by_key(|session| session.started_at);
        newest.map(|session| Self { dir: Some(dir), session })
    }

    /// An unfinished enabled session of any run whose plan is the same as this one, but for the run's name.
    pub(super) fn unfinished(data_dir: &Path, plan: &PlanProposalV1) -> Option<(RunId, Self)> {
        let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names.into_iter().filter_map(|name| RunId::new(name).ok()).find_map(|run| {
            let journal = Self::of_run(data_dir, &run)?;
            let named = PlanProposalV1 { run_id: run.to_string(), ..plan.clone() };
            let same = journal.session.plan_proposal_id == named.id();
            (same && journal.session.status.is_open()).then_some((run, journal))
        })
    }

    /// Which phase is which action, by the plan that is kept beside the session.
    pub(super) fn work(&self) -> Work {
        let work = self.plan().zip(RunId::new(self.session.run_id.as_str()).ok());
        work.map_or_else(Work::none, |(plan, run)| work_of(&run, &plan, RunLimits::default()))
    }

    /// The plan that is kept beside the session.
    pub(super) fn plan(&self) -> Option<PlanProposalV1> {
        self.dir.as_ref()?.read_json(PLAN)
    }

    /// The run's folder, where there is one.
    pub(super) const fn dir(&self) -> Option<&RunDir> {
        self.dir.as_ref()
    }

    /// Writes the session.
    pub(super) fn save(&self) -> Result<(), CliError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let id = self.session.session_id.trim_start_matches("autopilot-");
        dir.write_json(&format!("{FOLDER}/session_{id}.json"), &self.session).map(|_| ())
    }

    /// Moves the session and writes it; a move that is none (it is there already) only writes.
    pub(super) fn go(&mut self, to: SessionStatus, reason: Option<String>, now: Timestamp) -> Result<(), CliError> {
        if self.session.status.allows(to) && self.session.go(to, reason.clone(), now).is_ok() {
            return self.save();
        }
        if self.session.status == to {
            self.session.blocked_reason = reason;
        }
        self.save()
    }

    /// Records how the phases of a run ended, each once.
    pub(super) fn record(&mut self, run: &Run, action_of: impl Fn(&str) -> Option<String>, now: Timestamp) {
        for phase in &run.phases {
            let Some(action) = action_of(&phase.id) else { continue };
            if self.session.executed_action_ids.contains(&action) {
                continue;
            }
            match phase.state.as_str() {
                "APPLIED" => self.session.record(&action, Ok(())),
                "FAILED" | "ROLLED_BACK" | "CANCELLED" => {
                    let error = SessionError {
                        timestamp: now,
                        action_id: Some(action.clone()),
                        error_type: phase.state.to_lowercase(),
                        error_message: phase.reason.clone(),
                    };
                    self.session.record(&action, Err(error));
                }
                _ => {}
            }
        }
    }
}
