//! Arguments of `demo`.

use clap::Args;

/// `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  autopack demo            in a scratch clone of the repository around you; asks for one decision
  autopack demo --yes      decides by itself
  autopack demo --keep     leaves the scratch clone where it is, to look around in

It works offline, in a temporary folder, and never writes to the repository it was started in.")]
pub(crate) struct Demo {
    /// Approve without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Keep the scratch clone
    #[arg(long)]
    pub(crate) keep: bool,
}
