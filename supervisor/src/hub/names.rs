//! The refs that the hub may write. A name can only be made for one of these places, so no caller can move another.

use std::fmt;

use autopack_shared::domain::ids::{PhaseId, RunId};

use super::{AttemptKey, HubError};

/// The ref that holds the fencing token.
pub(super) const FENCE: &str = "refs/autopack/fence";

/// The ref that says whose hub it is.
pub(super) const CLUSTER: &str = "refs/autopack/cluster";

/// Whose hub a repository is that an embedded engine works on, with whichever data directory: that may be thrown away.
pub(crate) const EMBEDDED: &str = "embedded";

/// Where the branches of runs are.
pub(crate) const RUNS: &str = "refs/heads/autopack/";

/// The name of a ref that the hub may write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

impl RefName {
    /// The branch of a run: `refs/heads/autopack/<run>`.
    #[must_use]
    pub fn run(run: &RunId) -> Self {
        Self(format!("refs/heads/autopack/{run}"))
    }

    /// The merge of a landing before it lands: `refs/autopack/land/<id>`.
    #[must_use]
    pub fn landing(run: &RunId) -> Self {
        Self(format!("refs/autopack/land/{run}"))
    }

    /// A save point: `refs/autopack/save/<run>/<phase>/<attempt>`.
    #[must_use]
    pub fn save(run: &RunId, phase: &PhaseId, attempt: u32) -> Self {
        Self(format!("refs/autopack/save/{run}/{phase}/{attempt}"))
    }

    /// The tag of a phase's last save point: `refs/tags/save-before-<run>-<phase>`.
    #[must_use]
    pub fn save_tag(run: &RunId, phase: &PhaseId) -> Self {
        Self(format!("refs/tags/save-before-{run}-{phase}"))
    }

    /// A pending result: `refs/autopack/q/<run>/<epoch>/<attempt>/<phase>`. The phase is in it because phases that do
    /// not depend on each other can wait at the same time, each with its first attempt.
    #[must_use]
    pub fn pending(at: &AttemptKey) -> Self {
        Self(format!("refs/autopack/q/{}/{}/{}/{}", at.run, at.epoch, at.attempt, at.phase))
    }

    /// The target branch of a landing: any `refs/heads/...` that is well formed.
    ///
    /// # Errors
    /// [`HubError::ForeignRef`] for anything that is no branch.
    pub fn target(name: &str) -> Result<Self, HubError> {
        if name.strip_prefix("refs/heads/").is_some_and(|rest| rest != "HEAD") && git2::Reference::is_valid_name(name) {
            Ok(Self(name.to_owned()))
        } else {
            Err(HubError::ForeignRef { name: name.to_owned() })
        }
    }

    /// A name that was listed in one of our places.
    pub(super) fn listed(name: &str) -> Result<Self, HubError> {
        if Self::is_ours(name) {
            Ok(Self(name.to_owned()))
        } else {
            Err(HubError::ForeignRef { name: name.to_owned() })
        }
    }

    /// Whether the name lies where only Autopack writes, so that a lock left there can be Autopack's.
    pub(super) fn is_ours(name: &str) -> bool {
        let ours = ["refs/heads/autopack/", "refs/autopack/", "refs/tags/save-before-"];
        ours.iter().any(|prefix| name.starts_with(prefix)) && git2::Reference::is_valid_name(name)
    }

    /// Whether this is a branch, which moves forward only.
    #[must_use]
    pub fn is_branch(&self) -> bool {
        self.0.starts_with("refs/heads/")
    }

    /// The full name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_branches_can_be_targets() {
        assert!(RefName::target("refs/heads/main").is_ok());
        for bad in [
            "main",
            "HEAD",
            "refs/heads/",
            "refs/heads/../x",
            "refs/heads/a.lock",
            "refs/tags/v1",
            "refs/heads/a b",
            "refs/heads/HEAD",
        ] {
            assert!(RefName::target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn our_places_do_not_include_the_users() {
        assert!(RefName::is_ours("refs/autopack/fence") && RefName::is_ours("refs/tags/save-before-r-p"));
        for other in
            ["refs/heads/main", "refs/heads/autopackx", "refs/tags/v1", "refs/autopack/../heads/main", "packed-refs"]
        {
            assert!(!RefName::is_ours(other), "{other}");
        }
    }
}
