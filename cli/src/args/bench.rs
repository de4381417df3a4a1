//! Arguments of `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  autopack bench                          every figure, with throwaway etcd, PostgreSQL, supervisor and worker
  autopack bench grants transitions       only these
  autopack bench scan --quick             small numbers: shows that it works, not how good it is
  autopack bench -o json > figures.json

Each figure stands beside a floor or a reference that is measured in the same run, turn by turn, so that a slow or busy
machine slows both. docs/PERFORMANCE.md says how to read them and what limits each. It needs the packages etcd-server
and postgresql, and git; nothing of yours is touched.")]
pub(crate) struct Bench {
    /// Which figures [default: all]
    #[arg(value_enum, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
    /// How often each is measured, in turn with its floors
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Idle workers of `idle`
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20000))]
    pub(crate) workers: u32,
    /// Small numbers: two repetitions, 50 idle workers, 500 files
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where the services keep their data; its disk is what commits wait for [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Name {
    /// Grants a second, 64 runs asking at once
    Grants,
    /// State transitions a second
    Transitions,
    /// What idle workers cost a supervisor
    Idle,
    /// Submit to the builder's first byte
    FirstByte,
    /// Approve to the start of the apply
    Approve,
    /// A gap scan beside git status and git ls-files
    Scan,
    /// A lease's worktree beside git worktree add, and what is collected of it
    Workspace,
    /// A sandbox beside a bare start
    Sandbox,
}

impl Name {
    /// Whether it is measured on a running cluster.
    pub(crate) const fn needs_cluster(self) -> bool {
        !matches!(self, Self::Scan | Self::Workspace | Self::Sandbox)
    }
}
