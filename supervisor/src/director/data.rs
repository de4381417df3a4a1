//! The data of a run's processes, as a grant sees to it: asked for before a lease is made, made before it is held. A
//! server that is away holds up the runs that need it, and is not asked again for a while.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use autopack_shared::domain::ids::FencingToken;
use autopack_shared::domain::record::Run;
use autopack_shared::domain::run_data::{self, Unoffered};

use super::look::Candidate;
use super::view::RunView;
use super::{Denial, Director};
use crate::error::RUN_DATA_UNAVAILABLE;
use crate::policy::PolicyInForce;
use crate::run_data::{PATIENCE, RunDataError, Stint};

/// How long the server may take to say whether there is room.
const ASK: Duration = Duration::from_secs(3);
/// How many are asked for in one pass.
const ASKS: u32 = 16;
/// How long it is left alone after it failed: each try costs the other runs of the project their turn.
const REST: Duration = Duration::from_secs(5);

/// A server that failed.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    until: Instant,
    why: String,
}

/// What one pass asks of the server: until one may have its data, for one is given it in a pass, and not without end.
#[derive(Debug)]
pub(super) struct Asking {
    left: u32,
    until: Instant,
    found: bool,
}

impl Asking {
    /// That of a pass that begins.
    pub(super) fn now() -> Self {
        Self { left: ASKS, until: Instant::now() + ASK, found: false }
    }
}

/// Whether a lease would start processes whose data is on the server.
pub(super) fn needed(policy: &PolicyInForce, one: &Candidate) -> bool {
    let starts = |phase| run_data::starts_processes(one.purpose, phase, policy.gate_of(phase).len());
    !one.view.run.run_data.is_sqlite() && one.phase().is_some_and(starts)
}

impl Director {
    /// Why the run cannot have its data now, if so. Of those behind one that can, nobody is asked: their turn comes.
    pub(super) async fn data_denied(&self, view: &RunView, asking: &mut Asking) -> Option<Denial> {
        let Some(databases) = &self.run_data else {
            let why = Unoffered { asked: view.run.run_data }.to_string();
            return Some(denial(&why, "a supervisor that is started with --run-database-url-file"));
        };
        if let Some(rest) = self.rest().filter(|rest| rest.until > Instant::now()) {
            return Some(denial(&rest.why, REMEDY));
        }
        if asking.found {
            return None;
        }
        if asking.left == 0 || Instant::now() >= asking.until {
            return Some(denial("others were asked for before it", REMEDY));
        }
        asking.left -= 1;
        let asked = tokio::time::timeout(ASK, databases.has_room(&view.run.id));
        let denied = self.heard(asked.await.unwrap_or_else(|_| Err(late())));
        asking.found = denied.is_none();
        if denied.is_some() {
            // Others are asked for meanwhile: all in turn, however many wait.
            self.pauses().failed(&view.run.id, self.clock.monotonic());
        }
        denied
    }

    /// Makes the run's data and the login of an epoch.
    pub(super) async fn give_data(&self, run: &Run, epoch: u64) -> Result<(), Denial> {
        let Some(databases) = &self.run_data else { return Err(denial("there is no server for it", REMEDY)) };
        let token = FencingToken { incarnation: self.token.incarnation, epoch };
        let stint = Stint { run: run.id.clone(), model: run.run_data, token };
        let made = tokio::time::timeout(PATIENCE, databases.provision(&stint));
        self.heard(made.await.unwrap_or_else(|_| Err(late()))).map_or(Ok(()), Err)
    }

    /// What an answer means for the run, and for how long the server is left alone.
    fn heard(&self, answer: Result<(), RunDataError>) -> Option<Denial> {
        let error = answer.err()?;
        tracing::warn!(%error, "the data of a run cannot be given");
        let why = error.to_string();
        if matches!(error, RunDataError::Unavailable { .. }) {
            let until = Instant::now() + REST;
            *self.data_rests.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rest { until, why: why.clone() });
        }
        Some(denial(&why, REMEDY))
    }

    fn rest(&self) -> Option<Rest> {
        self.data_rests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const REMEDY: &str = "the run-database server, when it can; it is asked again by itself";

fn denial(why: &str, remedy: &str) -> Denial {
    Denial::new(RUN_DATA_UNAVAILABLE, why, remedy)
}

fn late() -> RunDataError {
    RunDataError::Unavailable { why: "it did not answer in time".to_owned(), hint: "check that it runs" }
}
