//! Why a run is not gone with any more, and how that ends a command.

use autopack_shared::wire::pb::Run;

use crate::exit::Exit;
use crate::follow::is_terminal;
use crate::show::{moment, span};
use crate::terminal::line;

/// Milliseconds that a command waits where nothing but time is missing.
const PATIENCE_MS: i64 = 10_000;

/// What a run waits for that is over by itself, where that takes longer than a command should wait: when it goes on,
/// and why it waits.
pub(super) fn resting(run: &Run, now_ms: i64) -> Option<String> {
    let left = run.rests_until_ms - now_ms;
    let words = || {
        let (until, left) = (moment(run.rests_until_ms), span(left));
        format!("{} waits until {until} ({left} from now): {}", line(&run.id), line(&run.rests))
    };
    (run.state == "QUEUED" && left > PATIENCE_MS).then(words)
}

/// Why a run is not gone with any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is at its end.
    Ended,
    /// Only decisions are left.
    Waiting,
    /// A phase is blocked, and nothing else can move.
    Blocked,
    /// An operator holds it.
    Paused,
    /// It waits for nothing but time, and for longer than a command should.
    Resting,
    /// The person left.
    Detached,
}

impl Rest {
    /// How a run rests that nobody goes with; none where it is on its way.
    pub(crate) fn of(run: &Run) -> Option<Self> {
        match run.state.as_str() {
            "WAITING" => Some(Self::Waiting),
            "PAUSED" => Some(Self::Paused),
            "BLOCKED" => Some(Self::Blocked),
            state => is_terminal(state).then_some(Self::Ended),
        }
    }
}

/// A run and why it is not gone with any more.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The run as it was last seen.
    pub(crate) run: Run,
    /// Why.
    pub(crate) rest: Rest,
}

impl Outcome {
    /// How it ends a command.
    pub(crate) fn exit(&self) -> Exit {
        match self.rest {
            Rest::Waiting | Rest::Paused | Rest::Resting => Exit::Waiting,
            Rest::Blocked => Exit::Refused,
            Rest::Detached => Exit::Interrupted,
            Rest::Ended => match self.run.state.as_str() {
                "SUCCEEDED" => Exit::Done,
                "CANCELLED" => Exit::Refused,
                _ => Exit::WorkFailed,
            },
        }
    }
}

/// How several ends together end a command: left by the person, then the first of 4, 5, 1 that applies, else 0.
pub(crate) fn exit_of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Exit {
    first_of(outcomes.into_iter().map(Outcome::exit))
}

/// The same of exits.
pub(crate) fn first_of(ends: impl IntoIterator<Item = Exit>) -> Exit {
    let ends: Vec<Exit> = ends.into_iter().collect();
    let order = [Exit::Interrupted, Exit::Waiting, Exit::Refused, Exit::WorkFailed];
    order.into_iter().find(|exit| ends.contains(exit)).unwrap_or(Exit::Done)
}
