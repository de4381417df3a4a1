//! Arguments of `runs`, `rollback` and `savepoints`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use autopack_shared::domain::ids::{PhaseId, RunId};

/// `runs`.
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// Record a run from a run file and queue it; a file that was submitted before attaches to its run
    #[command(
        after_help = "Examples:\n  autopack runs submit work.yaml\n  autopack runs submit - --run-id docs-1 < work.json\n\nA run that is there keeps its --insecure-no-sandbox: the same file with another is refused."
    )]
    Submit(Submit),
    /// List runs, newest first
    #[command(
        after_help = "Examples:\n  autopack runs list\n  autopack runs list --state waiting --state blocked -o json"
    )]
    List(List),
    /// Show a run and its phases
    #[command(after_help = "Examples:\n  autopack runs show tidy-1")]
    Show(Named),
    /// Follow a run until it ends, or only decisions are left
    #[command(after_help = "Examples:\n  autopack runs watch tidy-1\n  autopack runs watch tidy-1 --after 42 -o jsonl")]
    Watch(Watch),
    /// Print a run's history so far, and with -f what happens from now on
    #[command(
        after_help = "Examples:\n  autopack runs logs tidy-1\n  autopack runs logs tidy-1 --phase p01 -f\n\nOf much output only some is told as it comes; autopack runs transcript has the rest."
    )]
    Logs(Logs),
    /// Print what a builder printed, or a gate command
    #[command(
        after_help = "Examples:\n  autopack runs transcript tidy-1 p01\n  autopack runs transcript tidy-1 p01 --attempt 2 | less\n  autopack runs transcript tidy-1 p01 --gate tests\n\nSecrets are taken out before it is kept. Of very much output the beginning and the end are there."
    )]
    Transcript(Transcript),
    /// Print what a run, or one phase, changed
    #[command(after_help = "\
Examples:
  autopack runs diff tidy-1
  autopack runs diff tidy-1 p01 | less
  autopack runs diff tidy-1 p01 --attempts 2..3    from what one attempt left to what another left")]
    Diff(Diff),
    /// End a run; what is applied stays
    #[command(after_help = "Examples:\n  autopack runs cancel tidy-1")]
    Cancel(Named),
    /// Hold a run; work under way is finished first
    #[command(after_help = "Examples:\n  autopack runs pause tidy-1")]
    Pause(Named),
    /// Go on with a paused run, and drive any run that is not at its end
    #[command(after_help = "Examples:\n  autopack runs resume tidy-1\n  autopack runs resume tidy-1 --no-wait")]
    Resume(Resume),
    /// Give a blocked phase one more attempt, with words for the builder
    #[command(after_help = "\
Examples:
  autopack runs retry tidy-1 --feedback 'leave docs/ alone'
  autopack runs retry tidy-1 --phase p02 --scope src/ --scope examples/")]
    Retry(Retry),
    /// Set bounds of a run anew; one that was held up by its own bound goes on
    #[command(
        after_help = "Examples:\n  autopack runs budget tidy-1 --tokens 2000000\n  autopack runs budget tidy-1 --cost 12.50 --seconds 7200\n  autopack runs budget tidy-1 --phase p01 --tokens 500000"
    )]
    Budget(Budget),
    /// Say why a run does not move, and what would move it
    #[command(after_help = "Examples:\n  autopack runs explain tidy-1")]
    Explain(Named),
    /// Merge a run's branch into its target, governed like any change
    #[command(after_help = "Examples:\n  autopack runs land tidy-1")]
    Land(Named),
}

/// A run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Named {
    /// The run's name
    #[arg(value_name = "RUN")]
    pub(crate) run: RunId,
}

/// `runs submit`.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The run file, YAML or JSON; `-` reads stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The run's name, where the file has none
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
    /// Let command builders run without a sandbox; the run is marked and every change is asked about
    #[arg(long)]
    pub(crate) insecure_no_sandbox: bool,
    /// Drive and follow the run, as `runs resume` does
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `runs list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only runs in this state; can be given more than once
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Vec<String>,
    /// The most to list
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: u32,
}

/// `runs watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Start after this event
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(crate) after: u64,
}

/// `runs logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Only this phase
    #[arg(long, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseId>,
    /// Go on until the run ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Start after this event
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(crate) after: u64,
}

/// `runs transcript`.
#[derive(Debug, Args)]
pub(crate) struct Transcript {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The phase
    #[arg(value_name = "PHASE")]
    pub(crate) phase: PhaseId,
    /// Which attempt [default: the newest that printed anything]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Of this gate command instead of the builder
    #[arg(long, value_name = "NAME")]
    pub(crate) gate: Option<String>,
}

/// A run, or one phase of it.
#[derive(Debug, Args)]
pub(crate) struct PhaseOf {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Only this phase
    #[arg(long, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseId>,
}

/// `runs diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Only this phase
    #[arg(value_name = "PHASE")]
    pub(crate) only: Option<PhaseId>,
    /// Only this phase, as a flag
    #[arg(long, value_name = "PHASE", conflicts_with = "only")]
    pub(crate) phase: Option<PhaseId>,
    /// From what attempt A of the phase left to what attempt B left
    #[arg(long, value_name = "A..B", value_parser = attempts)]
    pub(crate) attempts: Option<(u32, u32)>,
}

/// Reads `2..3`.
fn attempts(text: &str) -> Result<(u32, u32), String> {
    let why = || "it must be two attempts, such as 2..3".to_owned();
    let (from, to) = text.split_once("..").ok_or_else(why)?;
    match (from.parse(), to.parse()) {
        (Ok(from @ 1..), Ok(to @ 1..)) => Ok((from, to)),
        (..) => Err(why()),
    }
}

/// `runs budget`.
#[derive(Debug, Args)]
#[group(id = "bounds", required = true, multiple = true, args = ["tokens", "cost", "calls", "seconds", "files"])]
pub(crate) struct Budget {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Of this phase only
    #[arg(long, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseId>,
    /// Tokens of models in all
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<u64>,
    /// Money in all, in the currency of the price list
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) cost: Option<f64>,
    /// Calls of models in all
    #[arg(long, value_name = "N")]
    pub(crate) calls: Option<u64>,
    /// Wall seconds of builders in all
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Changed files in all
    #[arg(long, value_name = "N")]
    pub(crate) files: Option<u64>,
}

/// `runs resume`.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Decide on this terminal, request by request
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Do not wait for decisions: exit 4
    #[arg(long, conflicts_with = "interactive")]
    pub(crate) no_wait: bool,
}

/// `runs retry`.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Only this phase [default: every blocked one]
    #[arg(long, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseId>,
    /// What the builder should know
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) feedback: String,
    /// A new scope; can be given more than once
    #[arg(long, value_name = "PATH")]
    pub(crate) scope: Vec<String>,
}

/// `rollback`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  autopack rollback tidy-1 --reason 'the links were fine'\n  autopack rollback tidy-1 --phase p02"
)]
pub(crate) struct Rollback {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Only this phase [default: every applied one, newest first]
    #[arg(long, value_name = "PHASE")]
    pub(crate) phase: Option<PhaseId>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

/// `savepoints`.
#[derive(Debug, Subcommand)]
pub(crate) enum Savepoints {
    /// List save points of a run, or of all
    #[command(after_help = "Examples:\n  autopack savepoints list\n  autopack savepoints list tidy-1 -o json")]
    List(SavepointsList),
    /// Show what a run's branch changed since a save point
    #[command(
        after_help = "Examples:\n  autopack savepoints diff tidy-1 --phase p01\n  autopack savepoints diff tidy-1 -o json"
    )]
    Diff(PhaseOf),
    /// Go back to a save point: roll back its phase and everything applied after it
    #[command(after_help = "Examples:\n  autopack savepoints restore tidy-1 --phase p01 --reason 'start over'")]
    Restore(Restore),
}

/// `savepoints restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The phase before which the save point was made
    #[arg(long, value_name = "PHASE")]
    pub(crate) phase: PhaseId,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

/// `savepoints list`.
#[derive(Debug, Args)]
pub(crate) struct SavepointsList {
    /// Only this run
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<RunId>,
}
