//! Arguments of `sandbox`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// A folder that builders and gates may read, such as a toolchain; can be given more than once
    #[arg(long, value_name = "DIR")]
    pub(crate) sandbox_path: Vec<PathBuf>,
    /// Mebibytes of memory of one sandbox
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) sandbox_memory: u64,
}
