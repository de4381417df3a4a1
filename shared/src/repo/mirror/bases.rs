//! The commits that a mirror has whole: what need not be sent again.

use super::super::open::{from_git, to_git};
use super::{Mirror, MirrorError};
use crate::domain::ids::Oid;

/// Refs that keep fetched commits alive.
const BASES: &str = "refs/autopack/base/";

/// Commits that are told to a sender.
const TOLD: usize = 64;

impl Mirror {
    /// Takes in the pack of a commit, and remembers that it is here whole.
    ///
    /// # Errors
    /// When the pack is corrupt or does not have the commit.
    pub fn take_base(&self, commit: Oid, pack: &[u8]) -> Result<(), MirrorError> {
        self.import(pack)?;
        let _writing = self.write()?;
        let repo = self.repository()?;
        repo.find_commit(to_git(commit))?;
        repo.reference(&format!("{BASES}{commit}"), to_git(commit), true, "fetched")?;
        Ok(())
    }

    /// Whether a commit was taken in whole.
    ///
    /// # Errors
    /// When the mirror cannot be opened.
    pub fn has_base(&self, commit: Oid) -> Result<bool, MirrorError> {
        Ok(self.repository()?.find_reference(&format!("{BASES}{commit}")).is_ok())
    }

    /// Some of the commits that were taken in whole.
    ///
    /// # Errors
    /// When the mirror cannot be opened.
    pub fn bases(&self) -> Result<Vec<Oid>, MirrorError> {
        let repo = self.repository()?;
        let mut found = Vec::new();
        for reference in repo.references_glob(&format!("{BASES}*"))? {
            if let Some(oid) = reference?.target() {
                found.push((repo.find_commit(oid).map_or(0, |commit| commit.time().seconds()), from_git(oid)));
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        found.truncate(TOLD);
        Ok(found.into_iter().map(|(_, oid)| oid).collect())
    }
}
