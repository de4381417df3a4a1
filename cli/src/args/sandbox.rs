//! Arguments of `sandbox`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use autopack_shared::domain::sandbox::SandboxProfile;

/// `sandbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Try to get out of a real sandbox here; the level is what was denied
    #[command(after_help = "\
Examples:
  autopack sandbox selftest
  autopack sandbox selftest --bwrap none -o json")]
    Selftest(Selftest),
}

/// `sandbox selftest`.
#[derive(Debug, Args)]
pub(crate) struct Selftest {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// How sandboxes are built.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SandboxArgs {
    /// Bubblewrap, or none for the built-in way [default: the one on the PATH, else none]
    #[arg(long, value_name = "FILE|none")]
    pub(crate) bwrap: Option<PathBuf>,
    /// A folder that builders and gates may read, such as a toolchain; can be given more than once [default:
    /// worker.sandbox_paths]
    #[arg(long, value_name = "DIR")]
    pub(crate) sandbox_path: Vec<PathBuf>,
    /// Mebibytes of memory of one sandbox
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) sandbox_memory: u64,
    /// Mebibytes that the tree of one sandbox may take up on the disk [default: worker.sandbox_tree_mb, 16384]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub(crate) sandbox_tree: Option<u64>,
    /// Files that the tree of one sandbox may have [default: worker.sandbox_tree_files, 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sandbox_tree_files: Option<u64>,
    /// default, or strict: only system calls that ordinary tools need, and no TCP [default: worker.sandbox_profile]
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox_profile: Option<SandboxProfile>,
    /// How long a self-test is good [default: worker.sandbox_selftest_seconds, 21600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub(crate) sandbox_selftest: Option<u64>,
}
