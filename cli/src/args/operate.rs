//! Arguments of approvals, leases, audit, `up` and `doctor`.

use clap::{Args, Subcommand};

use autopack_shared::domain::ids::RunId;

/// `approvals`.
#[derive(Debug, Subcommand)]
pub(crate) enum Approvals {
    /// List requests, newest first; pending ones unless told otherwise
    #[command(
        after_help = "Examples:\n  autopack approvals list\n  autopack approvals list --all --run-id tidy-1 -o json"
    )]
    List(RequestsList),
    /// Show a request: facts, reasons, the diff
    #[command(after_help = "Examples:\n  autopack approvals show 01hx\n  autopack approvals show 01hx -o json")]
    Show(RequestNamed),
    /// Approve exactly the change that was shown
    #[command(after_help = "\
Examples:
  autopack approvals approve 01hx                 shows it and asks (on a terminal)
  autopack approvals approve 01hx --expect-digest sha256:4f1c... --reason 'read it'")]
    Approve(Approve),
    /// Reject a request, with words for the builder
    #[command(after_help = "Examples:\n  autopack approvals reject 01hx --reason 'keep the README where it is'")]
    Reject(Reject),
    /// Follow requests as they open and end
    #[command(
        after_help = "Examples:\n  autopack approvals watch\n  autopack approvals watch --run-id tidy-1 -o jsonl"
    )]
    Watch(RequestsWatch),
}

/// `governance`: the same under the seed's names.
#[derive(Debug, Subcommand)]
pub(crate) enum Governance {
    /// What waits for a person (`approvals list`)
    #[command(after_help = "Examples:\n  autopack governance pending")]
    Pending(RequestsWatch),
    /// One request (`approvals show`)
    #[command(after_help = "Examples:\n  autopack governance request 01hx")]
    Request(RequestNamed),
    /// Every request (`approvals list --all`)
    #[command(after_help = "Examples:\n  autopack governance history --run-id tidy-1")]
    History(RequestsWatch),
}

/// `approvals list`.
#[derive(Debug, Args)]
pub(crate) struct RequestsList {
    /// Only of this run
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
    /// Only in this state; can be given more than once
    #[arg(long, value_name = "STATE", conflicts_with = "all")]
    pub(crate) state: Vec<String>,
    /// Ended ones too
    #[arg(long)]
    pub(crate) all: bool,
    /// The most to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
}

/// `approvals watch`, `governance pending` and `history`.
#[derive(Debug, Args)]
pub(crate) struct RequestsWatch {
    /// Only of this run
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
}

/// One request.
#[derive(Debug, Args)]
pub(crate) struct RequestNamed {
    /// The request's id, or a start of it that fits no other
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `approvals approve`.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    pub(crate) named: RequestNamed,
    /// The digest of the change that was looked at; needed without a terminal
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expect_digest: Option<String>,
    /// Why; needed for tier 4
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

/// `approvals reject`.
#[derive(Debug, Args)]
pub(crate) struct Reject {
    #[command(flatten)]
    pub(crate) named: RequestNamed,
    /// What the builder should do instead
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// A stable word for it
    #[arg(long, value_name = "CODE", default_value = "rejected")]
    pub(crate) code: String,
    /// The digest of the change that was looked at
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expect_digest: Option<String>,
}

/// `leases`.
#[derive(Debug, Subcommand)]
pub(crate) enum Leases {
    /// List leases, what is held by liveness, and the most there ever were at once
    #[command(after_help = "Examples:\n  autopack leases list\n  autopack leases list --all --run-id tidy-1 -o json")]
    List(LeasesList),
    /// Take a run's lease from whoever has it; the run goes back to the queue
    #[command(after_help = "\
Examples:
  autopack leases break tidy-1 --reason 'its builder hangs'
  autopack leases break tidy-1 --epoch 7 --reason 'its builder hangs'

What the one who had it still sends is refused. The attempt counts as lost, not as failed. A lease that was granted
since you looked is not broken, and you are told so.")]
    Break(LeasesBreak),
}

/// `leases break`.
#[derive(Debug, Args)]
pub(crate) struct LeasesBreak {
    /// The run
    #[arg(value_name = "RUN")]
    pub(crate) run: RunId,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// The epoch of the lease that is meant, as leases list shows it; 0 for locks without one [default: what is open]
    #[arg(long, value_name = "N")]
    pub(crate) epoch: Option<u64>,
}

/// `leases list`.
#[derive(Debug, Args)]
pub(crate) struct LeasesList {
    /// Ended ones too
    #[arg(long)]
    pub(crate) all: bool,
    /// Only of this run
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
}

/// `audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Compute every chain again: exit 0 whole, 2 broken, 3 cut short, 6 the tables say something else
    #[command(after_help = "\
Examples:
  autopack audit verify
  autopack audit verify --json

64 means that nothing was verified: the command line is wrong, or there are no records here.")]
    Verify(AuditVerify),
    /// Write the records, one JSON document a line
    #[command(
        after_help = "Examples:\n  autopack audit export > audit.jsonl\n  autopack audit export --chain run/tidy-1"
    )]
    Export(AuditExport),
    /// Search the records
    #[command(after_help = "Examples:\n  autopack audit query --run-id tidy-1 --op apply.committed")]
    Query(AuditQuery),
}

/// `audit verify`.
#[derive(Debug, Args)]
pub(crate) struct AuditVerify {
    /// The same as -o json
    #[arg(long)]
    pub(crate) json: bool,
    /// Compare the tables with the records as well; always done
    #[arg(long)]
    pub(crate) semantic: bool,
}

/// `audit export`.
#[derive(Debug, Args)]
pub(crate) struct AuditExport {
    /// Only this chain: run/<id>, project/<id> or cluster
    #[arg(long, value_name = "CHAIN")]
    pub(crate) chain: Option<String>,
}

/// `audit query`.
#[derive(Debug, Args)]
pub(crate) struct AuditQuery {
    /// Only of this run
    #[arg(long, value_name = "RUN")]
    pub(crate) run_id: Option<RunId>,
    /// Only this operation, or all that start with it: `request.`
    #[arg(long, value_name = "OP")]
    pub(crate) op: Option<String>,
    /// Only by this actor
    #[arg(long, value_name = "WHO")]
    pub(crate) actor: Option<String>,
    /// The last N that fit
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}

/// `up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  autopack up\n  autopack up --data-dir /var/lib/autopack/shop\n\nCtrl-C ends it; runs go on when it, or any command that drives runs, starts again."
)]
pub(crate) struct Up {}

/// `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  autopack doctor\n  autopack doctor -o json")]
pub(crate) struct Doctor {}
