//! Arguments of the commands that need no engine.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use autopack_shared::domain::ids::RunId;

/// `init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  autopack init
  autopack init --write-root src --write-root tools --risk-tolerance moderate

Files that exist are left as they are, and are registered so that runs use them before they are committed.")]
pub(crate) struct Init {
    /// A folder that runs may change without asking (beside the policy's own); can be given more than once
    #[arg(long, value_name = "DIR")]
    pub(crate) write_root: Vec<String>,
    /// How much risk is fine: minimal and low ask more often
    #[arg(long, value_enum, default_value_t = Tolerance::Low, value_name = "LEVEL")]
    pub(crate) risk_tolerance: Tolerance,
}

/// How much risk the owner accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tolerance {
    /// Strict
    Minimal,
    /// Strict
    #[default]
    Low,
    /// Normal
    Moderate,
    /// Normal
    High,
}

/// `anchor`.
#[derive(Debug, Subcommand)]
pub(crate) enum Anchor {
    /// Print a new anchor, or write it where there is none
    #[command(
        after_help = "Examples:\n  autopack anchor new\n  autopack anchor new --write --project-id shop --write-root src"
    )]
    New(AnchorNew),
    /// Check an anchor and explain each error
    #[command(after_help = "Examples:\n  autopack anchor lint\n  autopack anchor lint old/intention_v2.json")]
    Lint(AnchorFile),
    /// Show an anchor: what it allows, what it forbids, its digest
    #[command(after_help = "Examples:\n  autopack anchor show\n  autopack anchor show -o json")]
    Show(AnchorFile),
    /// Turn the predecessor's or the seed's short form into a whole anchor, on stdout
    #[command(after_help = "Examples:\n  autopack anchor convert old.yaml > .autopack/anchor_v2.json")]
    Convert(AnchorConvert),
}

/// `anchor new`.
#[derive(Debug, Args)]
pub(crate) struct AnchorNew {
    /// The project's name [default: the folder's]
    #[arg(long, value_name = "NAME")]
    pub(crate) project_id: Option<String>,
    /// A folder that runs may change without asking
    #[arg(long, value_name = "DIR")]
    pub(crate) write_root: Vec<String>,
    /// How much risk is fine
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub(crate) risk_tolerance: Tolerance,
    /// Write `.autopack/anchor_v2.json`; refused where there is one
    #[arg(long)]
    pub(crate) write: bool,
}

/// An anchor file.
#[derive(Debug, Args)]
pub(crate) struct AnchorFile {
    /// The anchor [default: <repo>/.autopack/anchor_v2.json]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// `anchor convert`.
#[derive(Debug, Args)]
pub(crate) struct AnchorConvert {
    /// The file to read, JSON or YAML
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The project's name, where the file has none
    #[arg(long, value_name = "NAME")]
    pub(crate) project_id: Option<String>,
}

/// `gaps`.
#[derive(Debug, Subcommand)]
pub(crate) enum Gaps {
    /// Scan the work tree, or with --server a commit, and report what is wrong; reads only, unless --write
    #[command(after_help = "\
Examples:
  autopack gaps scan
  autopack gaps scan --since main~20 -o json
  autopack gaps scan --write --run-id tidy-1 --sarif gaps.sarif
  autopack gaps scan --server http://s1:7443 --project shop      a worker scans the project's commit
  autopack gaps scan --server http://s1:7443 --at main~3 --write --data-dir found

With --server no work tree is looked at, and --write needs a --data-dir.")]
    Scan(GapsScan),
}

/// `gaps scan`.
#[derive(Debug, Args)]
pub(crate) struct GapsScan {
    /// The run the report is for
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
    /// Keep the report under <data-dir>/<run>/gaps/
    #[arg(long)]
    pub(crate) write: bool,
    /// Only files that changed since this revision
    #[arg(long, value_name = "REV")]
    pub(crate) since: Option<String>,
    /// Also read every object of the repository
    #[arg(long)]
    pub(crate) deep: bool,
    /// With --server: the branch or commit that is meant [default: where a run would start from]
    #[arg(long, value_name = "REV")]
    pub(crate) at: Option<String>,
    /// Also write a SARIF 2.1.0 log here
    #[arg(long, value_name = "FILE")]
    pub(crate) sarif: Vec<PathBuf>,
}

/// `plan`.
#[derive(Debug, Subcommand)]
pub(crate) enum Plan {
    /// Scan, and say what would be done about each gap and who would be asked
    #[command(
        after_help = "Examples:\n  autopack plan propose\n  autopack plan propose --write --run-id tidy-1 -o json\n  autopack plan propose --server http://s1:7443 --project shop"
    )]
    Propose(PlanPropose),
}

/// `plan propose`.
#[derive(Debug, Args)]
pub(crate) struct PlanPropose {
    /// The run the plan is for
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
    /// Keep report and plan under <data-dir>/<run>/
    #[arg(long)]
    pub(crate) write: bool,
    /// With --server: the branch or commit that is meant [default: where a run would start from]
    #[arg(long, value_name = "REV")]
    pub(crate) at: Option<String>,
    /// The anchor [default: <repo>/.autopack/anchor_v2.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Judge a change as a run would: exit 0 for tiers 1 and 2, 4 where a person is asked, 5 where it is refused
    #[command(after_help = "\
Examples:
  autopack policy eval --range main..feature
  autopack policy eval --patch fix.diff --base main -o json
  autopack policy eval --range main..HEAD --scope src/ --category security

The policy and the anchor are those of the base commit, unless --policy or --anchor name others.")]
    Eval(PolicyEval),
    /// Check the policy file and the anchor of the work tree
    #[command(after_help = "Examples:\n  autopack policy check\n  autopack policy check --policy other.toml")]
    Check(PolicyCheck),
    /// Judge a change and explain each reason and the rule behind it
    #[command(after_help = "Examples:\n  autopack policy explain --range main..feature")]
    Explain(PolicyEval),
}

/// `policy eval` and `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct PolicyEval {
    /// A unified diff in git format; `-` reads stdin
    #[arg(long, value_name = "FILE", requires = "base", required_unless_present = "range", conflicts_with = "range")]
    pub(crate) patch: Option<PathBuf>,
    /// The commit the patch applies to
    #[arg(long, value_name = "REV", requires = "patch", conflicts_with = "range")]
    pub(crate) base: Option<String>,
    /// Two commits; the change is what turns the first into the second
    #[arg(long, value_name = "A..B")]
    pub(crate) range: Option<String>,
    /// The anchor to judge by [default: the base commit's]
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
    /// The policy to judge by [default: the base commit's]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// A path the phase may change; anything else is out of scope
    #[arg(long, value_name = "PATH")]
    pub(crate) scope: Vec<String>,
    /// The kind of work: feature, docs, security, ...
    #[arg(long, value_name = "NAME")]
    pub(crate) category: Option<String>,
    /// What the phase is about, in words
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// A risk its author claims; it can only raise the tier
    #[arg(long, value_enum, value_name = "LEVEL", ignore_case = true)]
    pub(crate) claimed_risk: Option<Risk>,
}

/// A claimed risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Risk {
    /// 0..=29
    Low,
    /// 30..=49
    Medium,
    /// 50..=79
    High,
    /// 80..=100
    Critical,
}

/// `policy check`.
#[derive(Debug, Args)]
pub(crate) struct PolicyCheck {
    /// The policy [default: <repo>/autopack.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The anchor [default: <repo>/.autopack/anchor_v2.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
}

/// `gate`.
#[derive(Debug, Subcommand)]
pub(crate) enum Gate {
    /// May this many runs go side by side? Exit 0 yes, 5 no, 2 for input that is not valid
    #[command(after_help = "\
Examples:
  autopack gate check --runs 4 --workers 2
  autopack gate check --anchor .autopack/anchor_v2.json --runs docs,tests --workers 2 --active 1 -o json")]
    Check(GateCheck),
    /// Run the quality gate's commands here and show how each is read; nothing is compared, stored or taken back
    #[command(after_help = "\
Examples:
  autopack gate try
  autopack gate try --only tests -o json

The commands are those of autopack.toml as it is on disk. They run in the work tree itself.")]
    Try(GateTry),
    /// List the tests that gates saw fail once and pass once
    #[command(after_help = "Examples:\n  autopack gate flaky\n  autopack gate flaky --limit 10 -o json")]
    Flaky(GateFlaky),
    /// Show what gate commands do on an untouched base, or have it measured again
    #[command(after_help = "\
Examples:
  autopack gate baseline $(git rev-parse main)
  autopack gate baseline $(git rev-parse main) --forget --reason 'the test server was down'")]
    Baseline(GateBaseline),
}

/// `gate try`.
#[derive(Debug, Args)]
pub(crate) struct GateTry {
    /// Only the command of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,
}

/// `gate flaky`.
#[derive(Debug, Args)]
pub(crate) struct GateFlaky {
    /// How many, the ones seen last first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// `gate baseline`.
#[derive(Debug, Args)]
pub(crate) struct GateBaseline {
    /// The commit, as 40 hex digits
    #[arg(value_name = "COMMIT")]
    pub(crate) base: autopack_shared::domain::ids::Oid,
    /// Forget it: the next gate measures it again
    #[arg(long)]
    pub(crate) forget: bool,
    /// Why it is forgotten; kept in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", requires = "forget")]
    pub(crate) reason: String,
}

/// `gate check`.
#[derive(Debug, Args)]
pub(crate) struct GateCheck {
    /// The anchor; without one only a single run passes
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Option<PathBuf>,
    /// How many runs, or their names
    #[arg(long, value_name = "N|a,b", allow_hyphen_values = true)]
    pub(crate) runs: String,
    /// How many workers
    #[arg(long, value_name = "M", allow_hyphen_values = true)]
    pub(crate) workers: String,
    /// Runs of the project that hold a lease now
    #[arg(long, value_name = "K", default_value = "0", allow_hyphen_values = true)]
    pub(crate) active: String,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print each setting and where it came from
    #[command(after_help = "Examples:\n  autopack config show\n  autopack config show -o json")]
    Show,
}

/// `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  autopack completions bash > ~/.local/share/bash-completion/completions/autopack")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
