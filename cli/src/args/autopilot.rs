//! Arguments of autopilot.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use autopack_shared::domain::ids::RunId;

/// `autopilot`.
#[derive(Debug, Subcommand)]
pub(crate) enum Autopilot {
    /// Scan, plan and, with --enable, carry the plan out; without it a dry run that changes nothing
    #[command(after_help = "\
Examples:
  autopack autopilot run                          dry run: report and plan
  autopack autopilot run --enable                 carry it out; waits for decisions on a terminal
  autopack autopilot run --enable --interactive   decide here, change by change
  autopack autopilot run --enable --no-wait       exit 4 as soon as only decisions are left
  autopack autopilot run --enable --server http://s1:7443 --project shop     on a project of a cluster

The same command again goes on with an unfinished run of the same plan. Ctrl-C detaches and never cancels.")]
    Run(Run),
    /// Carry out several runs at once, behind the parallelism gate
    #[command(after_help = "\
Examples:
  autopack autopilot supervise --run-ids docs,notes --workers 2
  autopack autopilot supervise --run-ids docs,notes --server http://s1:7443 --project shop
  autopack autopilot supervise --list-worktrees
  autopack autopilot supervise --cleanup")]
    Supervise(Supervise),
}

/// How an autopilot run goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Carry the plan out
    #[arg(long)]
    pub(crate) enable: bool,
    /// Keep report and plan of a dry run under <data-dir>/<run>/ (with --enable they always are)
    #[arg(long)]
    pub(crate) write: bool,
    /// Decide on this terminal, request by request
    #[arg(long, requires = "enable")]
    pub(crate) interactive: bool,
    /// The run's name [default: a fresh one]
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
    /// Do not wait for decisions: exit 4
    #[arg(long, conflicts_with = "interactive")]
    pub(crate) no_wait: bool,
    /// With --server: the branch or commit that is meant [default: where a run would start from]
    #[arg(long, value_name = "REV")]
    pub(crate) at: Option<String>,
    /// The anchor [default: <repo>/.autopack/anchor_v2.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
    /// Let command builders run without a sandbox; the run is marked and every change is asked about
    #[arg(long)]
    pub(crate) insecure_no_sandbox: bool,
}

/// `autopilot supervise`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Supervise {
    /// The runs, by name; names of submitted runs are driven, others go through autopilot
    #[arg(long, value_name = "a,b,c", value_delimiter = ',', required_unless_present_any = ["list_worktrees", "cleanup"])]
    pub(crate) run_ids: Vec<RunId>,
    /// How many at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// Give each run a database file of its own beside its artifacts, named to builders and gates by DATABASE_URL:
    /// what this engine always does
    #[arg(long, conflicts_with = "database_url")]
    pub(crate) per_run_sqlite: bool,
    /// A PostgreSQL server that all runs share
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// With --server: the branch or commit that is meant [default: where a run would start from]
    #[arg(long, value_name = "REV", conflicts_with_all = ["list_worktrees", "cleanup"])]
    pub(crate) at: Option<String>,
    /// The anchor [default: <repo>/.autopack/anchor_v2.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
    /// Do not wait for decisions: exit 4
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Let command builders run without a sandbox; the runs are marked and every change is asked about
    #[arg(long)]
    pub(crate) insecure_no_sandbox: bool,
    /// List the worktrees of runs and end
    #[arg(long, conflicts_with_all = ["run_ids", "cleanup"])]
    pub(crate) list_worktrees: bool,
    /// Remove worktrees that no lease needs and end
    #[arg(long, conflicts_with = "run_ids")]
    pub(crate) cleanup: bool,
}
