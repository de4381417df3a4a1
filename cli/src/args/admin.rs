//! Arguments of what is done while a cluster is stopped.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `admin`.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Go on with a store that was restored to an older state: everything of the life before it is older from then on
    #[command(
        after_help = "Examples:\n  AUTOPACK_DATABASE_URL=postgres://autopack@db/autopack \\\n    autopack admin new-incarnation --etcd http://etcd:2379 --state-dir /var/lib/autopack --reason 'restored to 12:00' --dry-run\n\nEvery supervisor has to be stopped, and every hub readable. Lists what the hubs have and the store does not know of,\nand keeps it in the audit log. With --rename it also gives the cluster another name in etcd."
    )]
    NewIncarnation(NewIncarnation),
}

/// `admin new-incarnation`.
#[derive(Debug, Args)]
pub(crate) struct NewIncarnation {
    /// A file with the database's URL
    #[arg(long, value_name = "FILE")]
    pub(crate) database_url_file: Option<PathBuf>,
    /// A member of etcd; give each
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) etcd: Vec<String>,
    /// The cluster's name in etcd [default: the one that its supervisors had]
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster_id: Option<String>,
    /// Give the cluster that name, where it had another one
    #[arg(long, requires = "cluster_id")]
    pub(crate) rename: bool,
    /// Where it keeps journals, scratch files and caches: that of a supervisor here
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// A folder with what git servers want to see, as of autopack supervisor
    #[arg(long, value_name = "DIR")]
    pub(crate) hub_credentials: Option<PathBuf>,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}
