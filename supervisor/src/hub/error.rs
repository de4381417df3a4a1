//! Every way in which the hub refuses or fails.

use std::path::PathBuf;

use autopack_shared::domain::ids::{FencingToken, Oid};
use autopack_shared::repo::facts::FactsError;
use autopack_shared::repo::open::OpenError;
use autopack_shared::repo::pack::PackError;
use autopack_shared::repo::tree::TreeError;

use super::RefName;
use super::names::EMBEDDED;

/// Why the hub did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The repository cannot be written by this user.
    #[error("{} is read-only", path.display())]
    ReadOnly {
        /// The folder that cannot be written.
        path: PathBuf,
    },
    /// A repository that was opened before is not there now, or cannot be read.
    #[error("the hub {} cannot be used now", path.display())]
    Away {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: OpenError,
    },
    /// A hub that was asked and did not answer; whoever asked goes on without it.
    #[error("the hub of {project} did not answer within {seconds} s")]
    Silent {
        /// The project.
        project: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The hub of another cluster, or of an embedded engine.
    #[error("{hub} belongs to {}, this is {}", owner(found), owner(ours))]
    Foreign {
        /// Where it is.
        hub: String,
        /// Whose it is.
        found: String,
        /// Who wanted it.
        ours: String,
    },
    /// Another director holds the hub, or nobody does yet.
    #[error("the hub's fence is {}, not {token}", current.map_or_else(|| "not set".to_owned(), |token| token.to_string()))]
    Fenced {
        /// The token that was offered.
        token: FencingToken,
        /// The one in force.
        current: Option<FencingToken>,
    },
    /// Somebody else's git holds a lock and did not let go in time.
    #[error("{} is locked", file.display())]
    Locked {
        /// The lock file.
        file: PathBuf,
    },
    /// A branch that is checked out is not moved: its work tree would no longer match.
    #[error("{name} is checked out at {}", path.display())]
    CheckedOut {
        /// The branch.
        name: RefName,
        /// The work tree.
        path: PathBuf,
    },
    /// A branch only moves forward.
    #[error("{name} would not move forward from {old} to {new}")]
    NotForward {
        /// The branch.
        name: RefName,
        /// Its tip.
        old: Oid,
        /// The commit that does not descend from it.
        new: Oid,
    },
    /// A ref that should name an object names another ref.
    #[error("{name} is a symbolic ref")]
    Symbolic {
        /// The ref.
        name: String,
    },
    /// The fence ref holds something that is no token.
    #[error("the fence in refs/autopack/fence cannot be read")]
    BadFence,
    /// A ref name outside of what the hub may write.
    #[error("{name:?} is not a ref that autopack writes")]
    ForeignRef {
        /// The name.
        name: String,
    },
    /// A file at a commit is larger than its reader allows.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// The journal of locks, or the repository's folder, cannot be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An object is missing or unfit.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The facts of a change could not be read.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A branch cannot be made, for another name is in the way.
    #[error("{name} cannot be made while {other} is there")]
    Collides {
        /// The ref.
        name: String,
        /// The one that is in the way.
        other: String,
    },
    /// A pack was refused.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A place of a hub that cannot be used.
    #[error("{address:?} cannot be used: {why}")]
    Address {
        /// What was named, without its password.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A git server did not answer, or broke off.
    #[error("the git server of {address} did not answer: {said}")]
    ServerAway {
        /// The hub.
        address: String,
        /// What git said.
        said: String,
    },
    /// A git server did not take a change that it could have taken.
    #[error("the git server of {address} refuses {name}: {said}")]
    Refused {
        /// The hub.
        address: String,
        /// The ref.
        name: String,
        /// What the server said.
        said: String,
    },
    /// A git server that cannot be a hub.
    #[error("the git server of {address} {lacks}")]
    Unfit {
        /// The hub.
        address: String,
        /// What it lacks, or what it has instead.
        lacks: &'static str,
    },
    /// A file with credentials cannot be used.
    #[error("{}: {why}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// Whose a hub is, in words.
fn owner(mark: &str) -> String {
    if mark == EMBEDDED { "an embedded engine".to_owned() } else { format!("the cluster {mark}") }
}

impl HubError {
    /// Whether objects are missing or damaged.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Tree(_) | Self::Facts(_))
    }

    /// Whether it is about the ref that was asked for, and not about whether it can be asked for now.
    #[must_use]
    pub const fn is_of_the_ref(&self) -> bool {
        matches!(self, Self::Symbolic { .. } | Self::ForeignRef { .. })
    }

    /// Whether the hub cannot be asked now: that says nothing about what was asked.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::ServerAway { .. } | Self::Silent { .. })
    }
}
