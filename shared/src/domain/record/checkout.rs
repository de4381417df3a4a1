//! What keeps a landing from moving its target.

use serde::{Deserialize, Serialize};

/// A work tree that has a branch checked out which is to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// The branch.
    pub branch: String,
    /// The work tree.
    pub path: String,
    /// What moves it there, by hand.
    pub command: String,
}
