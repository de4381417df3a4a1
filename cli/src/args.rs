//! The command line: global options here, one file a group of commands below.

pub(crate) mod admin;
pub(crate) mod autopilot;
pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod demo;
pub(crate) mod local;
pub(crate) mod operate;
pub(crate) mod runs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  autopack init                             write a policy and an anchor for this repository
  autopack gaps scan                        what is wrong here? (reads only)
  autopack plan propose                     what could be done about it, and who would be asked?
  autopack autopilot run                    the same as a dry run
  autopack autopilot run --enable           do it: in worktrees, judged, approved, verified
  autopack approvals list                   what waits for you (from a second terminal)

Exit codes:
  0 done · 1 the run's own work failed · 2 usage or invalid input · 3 not found · 4 waiting for a person
  5 blocked, rejected or denied · 6 conflict · 7 a service is away or full · 70 a bug
  75 data directory in use · 78 unsafe configuration · 130 interrupted";

/// Governed autonomous runs on a git repository: gaps found, planned, changed in isolated worktrees, judged,
/// approved or refused, applied, verified, rolled back where the gate fails, and audited.
#[derive(Debug, Parser)]
#[command(name = "autopack", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The repository [default: the one around the current folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) repo: Option<PathBuf>,
    /// Where runs keep what they leave [default: <repo>/.autonomous_runs]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The settings file [default: <repo>/autopack.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A supervisor elsewhere [env: AUTOPACK_SERVER] [default: embedded, in this process]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The project that is meant there [env: AUTOPACK_PROJECT] [default: the only one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// A file with the token for the server [env: AUTOPACK_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How data is written to stdout
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// No notes on stderr
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More detail on stderr
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// No colour [env: NO_COLOR]
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it all at work on a scratch clone of this repository
    Demo(demo::Demo),
    /// Write a policy and a first anchor for this repository
    Init(local::Init),
    /// Make, check, show and convert intention anchors
    #[command(subcommand)]
    Anchor(local::Anchor),
    /// Find what is wrong in a repository
    #[command(subcommand)]
    Gaps(local::Gaps),
    /// Propose what to do about it
    #[command(subcommand)]
    Plan(local::Plan),
    /// Scan, plan and, when enabled, carry out the plan
    #[command(subcommand)]
    Autopilot(autopilot::Autopilot),
    /// Submit, watch and steer runs
    #[command(subcommand)]
    Runs(runs::Runs),
    /// Undo what a run applied, by a new commit on its branch
    Rollback(runs::Rollback),
    /// Look at the commits that a run can go back to, and go back
    #[command(subcommand)]
    Savepoints(runs::Savepoints),
    /// See and decide what waits for a person
    #[command(subcommand)]
    Approvals(operate::Approvals),
    /// Requests under the seed's names: pending, request, history
    #[command(subcommand)]
    Governance(operate::Governance),
    /// Look at leases, and break one
    #[command(subcommand)]
    Leases(operate::Leases),
    /// Ask the policy about a change; nothing is written
    #[command(subcommand)]
    Policy(local::Policy),
    /// Try the quality gate, see what it has learned, and ask the parallelism gate on paper
    #[command(subcommand)]
    Gate(local::Gate),
    /// Verify, export and search the audit log
    #[command(subcommand)]
    Audit(operate::Audit),
    /// Run the engine here until it is stopped
    Up(operate::Up),
    /// Run a supervisor of a cluster until it is stopped
    Supervisor(cluster::Supervisor),
    /// Run a worker of a cluster until it is stopped
    Worker(cluster::WorkerArgs),
    /// Make repositories known to a cluster, and list them
    #[command(subcommand)]
    Projects(cluster::Projects),
    /// Look at the workers of a cluster, and drain one
    #[command(subcommand)]
    Workers(cluster::Workers),
    /// Look at the worktrees of this machine's worker, and remove what is left
    #[command(subcommand)]
    Workspaces(cluster::Workspaces),
    /// Make tokens for people and workers of a cluster
    #[command(subcommand)]
    Token(cluster::Token),
    /// Mend a cluster that is stopped
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Check the repository, the data directory and the engine; reads only
    Doctor(operate::Doctor),
    /// Measure how good it is here, beside floors of the same run
    Bench(bench::Bench),
    /// Show the settings in force
    #[command(subcommand)]
    Config(local::Config),
    /// Print a completion script for a shell
    Completions(local::Completions),
}

impl Command {
    /// The form of output that a command's own flags stand for.
    pub(crate) fn format(&self) -> Option<Format> {
        matches!(self, Self::Audit(operate::Audit::Verify(args)) if args.json).then_some(Format::Json)
    }

    /// Settings that a command's own flags stand for.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Autopilot(autopilot::Autopilot::Supervise(args)) => vec![("worker.slots", args.workers.to_string())],
            Self::Autopilot(autopilot::Autopilot::Run(_))
            | Self::Bench(_)
            | Self::Demo(_)
            | Self::Init(_)
            | Self::Anchor(_)
            | Self::Gaps(_)
            | Self::Plan(_)
            | Self::Runs(_)
            | Self::Rollback(_)
            | Self::Savepoints(_)
            | Self::Approvals(_)
            | Self::Governance(_)
            | Self::Leases(_)
            | Self::Policy(_)
            | Self::Gate(_)
            | Self::Audit(_)
            | Self::Up(_)
            | Self::Supervisor(_)
            | Self::Worker(_)
            | Self::Projects(_)
            | Self::Workers(_)
            | Self::Workspaces(_)
            | Self::Token(_)
            | Self::Admin(_)
            | Self::Doctor(_)
            | Self::Config(_)
            | Self::Completions(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
