//! Arguments of the daemons of a cluster, and of what they know: `supervisor`, `worker`, `projects`, `workers`, `token`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use autopack_shared::domain::ids::{ProjectId, WorkerId};

use super::sandbox::SandboxArgs;

/// `supervisor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  AUTOPACK_DATABASE_URL=postgres://autopack@db/autopack \\\n    autopack supervisor --id s1 --etcd http://etcd:2379 --tokens /etc/autopack/tokens --state-dir /var/lib/autopack\n\nThe database's URL is taken from AUTOPACK_DATABASE_URL or from the file of --database-url-file, that of\nthe database for runs from AUTOPACK_RUN_DATABASE_URL or --run-database-url-file."
)]
pub(crate) struct Supervisor {
    /// Its name; unique among the live ones
    #[arg(long, value_name = "NAME")]
    pub(crate) id: String,
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7443")]
    pub(crate) listen: SocketAddr,
    /// Where others reach it [default: the address it listens on]
    #[arg(long, value_name = "URL")]
    pub(crate) advertise: Option<String>,
    /// A file with the database's URL
    #[arg(long, value_name = "FILE")]
    pub(crate) database_url_file: Option<PathBuf>,
    /// A file with the URL of a database for data of runs: each run gets a schema in it, or a database beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) run_database_url_file: Option<PathBuf>,
    /// Where workers reach the server of that database, as HOST or HOST:PORT [default: as in its URL]
    #[arg(long, value_name = "HOST")]
    pub(crate) run_database_host: Option<String>,
    /// Hours that data of a run is kept there after its end
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    pub(crate) run_data_retention: u32,
    /// A member of etcd; give each
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) etcd: Vec<String>,
    /// The cluster's name in etcd
    #[arg(long, value_name = "NAME", default_value = "autopack")]
    pub(crate) cluster_id: String,
    /// Where it keeps exports, journals and scratch files
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// A folder with what git servers want to see: git-credentials, or ssh_key and known_hosts; those of one project
    /// in a folder of its name
    #[arg(long, value_name = "DIR")]
    pub(crate) hub_credentials: Option<PathBuf>,
    /// The file that says which tokens are good for what (autopack token new)
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: PathBuf,
    /// Memory for packs that workers fetch, in MiB; a commit whose pack is larger than that cannot be worked on
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) fetch_memory: u32,
    /// Memory for packs that workers send, in MiB; a larger result is refused
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) upload_memory: u32,
}

/// `worker`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  AUTOPACK_TOKEN_FILE=/etc/autopack/worker.token \\\n    autopack worker --name w1 --supervisor http://s1:7443 --supervisor http://s2:7443 --root /var/lib/autopack-worker"
)]
pub(crate) struct WorkerArgs {
    /// Its name; unique among the live ones
    #[arg(long, value_name = "NAME")]
    pub(crate) name: WorkerId,
    /// A supervisor; give each, the first that answers is used
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) supervisor: Vec<String>,
    /// Where its mirrors and worktrees are
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// Phases it does at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) slots: u32,
    /// Mebibytes of what a builder prints that are kept; of more, the beginning and the end
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=16))]
    pub(crate) transcript_mib: usize,
    /// Mebibytes that the report of a gate command may have; what is larger is not read, and the gate is red
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) report_mib: u64,

    /// Worktrees of each project that are kept ready for the next leases; 0: none
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) warm: u32,
    /// What projects may have besides their commits: folders of ignored files, and secrets by name (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) provision: Option<PathBuf>,
    /// How long it may take to end its work once it is asked to stop; what is not done then is given back
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) drain_grace: u64,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// `projects`.
#[derive(Debug, Subcommand)]
pub(crate) enum Projects {
    /// Make a repository known to a cluster
    #[command(
        after_help = "Examples:\n  autopack projects add shop --repo /srv/hubs/shop.git --server http://s1:7443\n  autopack projects add shop --repo https://git.example.com/shop.git --server http://s1:7443\n\nA path is a bare repository on the supervisors' hosts that only they write. An address (https, ssh, git, file) is one\non a git server that takes atomic pushes; it holds no password: see --hub-credentials of autopack supervisor."
    )]
    Add(ProjectsAdd),
    /// List the projects of a cluster
    #[command(after_help = "Examples:\n  autopack projects list --server http://s1:7443")]
    List(ProjectsList),
}

/// `projects add`.
#[derive(Debug, Args)]
pub(crate) struct ProjectsAdd {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: ProjectId,
    /// A bare repository: its path on the supervisors' hosts, or its address on a git server
    // The global option of this name stands back; it has to have the same type.
    #[arg(long = "repo", visible_aliases = ["hub", "path"], value_name = "URL|PATH")]
    pub(crate) repo: PathBuf,
}

/// `projects list`.
#[derive(Debug, Args)]
pub(crate) struct ProjectsList {}

/// `workers`.
#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List the workers that are connected
    #[command(after_help = "Examples:\n  autopack workers list --server http://s1:7443 -o json")]
    List(WorkersList),
    /// Give a worker no more work; it leaves when what it has is done
    #[command(
        after_help = "Examples:\n  autopack workers drain w1 --reason 'new kernel' --server http://s1:7443\n  autopack workers drain w1 --undo --server http://s1:7443"
    )]
    Drain(WorkersDrain),
}

/// `workers list`.
#[derive(Debug, Args)]
pub(crate) struct WorkersList {}

/// `workers drain`.
#[derive(Debug, Args)]
pub(crate) struct WorkersDrain {
    /// The worker
    #[arg(value_name = "NAME")]
    pub(crate) name: WorkerId,
    /// Give it work again
    #[arg(long)]
    pub(crate) undo: bool,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

/// `workspaces`.
#[derive(Debug, Subcommand)]
pub(crate) enum Workspaces {
    /// List the worktrees that stand on this machine, and whether their leases live
    #[command(
        after_help = "Examples:\n  autopack workspaces list\n  autopack workspaces list --root /var/lib/autopack-worker --server http://s1:7443\n\nOnly this machine is looked at; the engine, or the server, says what of it lives."
    )]
    List(WorkspacesList),
    /// Remove the worktrees of leases that have ended
    #[command(
        after_help = "Examples:\n  autopack workspaces cleanup --dry-run\n  autopack workspaces cleanup --root /var/lib/autopack-worker --server http://s1:7443\n\nWhat a lost lease left was never handed in: it stays, unless --discard says otherwise."
    )]
    Cleanup(WorkspacesCleanup),
}

/// `workspaces list`.
#[derive(Debug, Args)]
pub(crate) struct WorkspacesList {
    /// The worker's folder [default: that of this repository]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

/// `workspaces cleanup`.
#[derive(Debug, Args)]
pub(crate) struct WorkspacesCleanup {
    #[command(flatten)]
    pub(crate) place: WorkspacesList,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove work that was never handed in, too
    #[arg(long)]
    pub(crate) discard: bool,
}

/// `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token: prints it once, and adds its digest to a file of tokens
    #[command(
        after_help = "Examples:\n  autopack token new --name ann --role person --tokens /etc/autopack/tokens > ann.token\n  autopack token new --name w1 --role worker --tokens /etc/autopack/tokens > w1.token"
    )]
    New(TokenNew),
}

/// `token new`.
#[derive(Debug, Args)]
pub(crate) struct TokenNew {
    /// Who gets it; a worker's is good for the worker of that name, or for all that fit `pool-*`
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// What it is good for
    #[arg(long, value_enum, value_name = "ROLE")]
    pub(crate) role: Role,
    /// The supervisors' file of tokens
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: PathBuf,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// To submit, steer, decide and look
    Person,
    /// To work
    Worker,
}
