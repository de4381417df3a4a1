//! Where the server's refs are, read from `git ls-remote --symref`, and what it said to each part of a push.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use autopack_shared::domain::ids::{FencingToken, Oid};

use super::git::plain;
use crate::hub::names::FENCE;
use crate::hub::{HeadFacts, HubError, RefName};

/// The refs of a server at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    refs: BTreeMap<String, Oid>,
    symbolic: BTreeSet<String>,
    head: HeadFacts,
    /// The token in the fence.
    pub(super) fence: Option<FencingToken>,
    /// When the server was asked.
    pub(super) asked: Duration,
}

impl Listing {
    /// Reads an answer. Only branches and the places of ours are kept.
    pub(super) fn parse(answer: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "has refs that are not those of a repository with SHA-1 object ids";
        let text = std::str::from_utf8(answer).map_err(|_| MALFORMED)?;
        let mut listing = Self::default();
        for line in text.lines() {
            let (value, name) = line.split_once('\t').ok_or(MALFORMED)?;
            let ours = name.starts_with("refs/heads/") || RefName::is_ours(name);
            if let Some(target) = value.strip_prefix("ref: ") {
                if name == "HEAD" {
                    listing.head.branch = Some(target.to_owned());
                } else if ours {
                    listing.symbolic.insert(name.to_owned());
                }
            } else if name == "HEAD" {
                listing.head.oid = Some(value.parse().map_err(|_| MALFORMED)?);
            } else if ours && !name.ends_with("^{}") {
                listing.refs.insert(name.to_owned(), value.parse().map_err(|_| MALFORMED)?);
            }
        }
        Ok(listing)
    }

    /// Where a ref is.
    pub(super) fn tip(&self, name: &str) -> Result<Option<Oid>, HubError> {
        if self.symbolic.contains(name) {
            return Err(HubError::Symbolic { name: name.to_owned() });
        }
        Ok(self.refs.get(name).copied())
    }

    /// What the server's `HEAD` says.
    pub(super) fn head(&self) -> HeadFacts {
        self.head.clone()
    }

    /// The object in the fence ref.
    pub(super) fn fence_blob(&self) -> Result<Option<Oid>, HubError> {
        self.tip(FENCE)
    }

    /// The refs below a folder: `refs/autopack/q/<run>/`.
    pub(super) fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, Oid)> {
        let from = self.refs.range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        from.take_while(move |(name, _)| name.starts_with(folder)).map(|(name, oid)| (name.as_str(), *oid))
    }

    /// The ref that keeps another from being made: git has no branch beside a folder of that name.
    pub(super) fn collision(&self, name: &str) -> Option<HubError> {
        let collides = |other: &str| HubError::Collides { name: name.to_owned(), other: other.to_owned() };
        let mut parent = name;
        while let Some((folder, _)) = parent.rsplit_once('/') {
            if self.refs.contains_key(folder) {
                return Some(collides(folder));
            }
            parent = folder;
        }
        self.below(&format!("{name}/")).next().map(|(other, _)| collides(other))
    }

    /// Takes in what a push of ours has done.
    pub(super) fn moved(&mut self, name: &str, to: Option<Oid>) {
        match to {
            Some(oid) => self.refs.insert(name.to_owned(), oid),
            None => self.refs.remove(name),
        };
    }
}

/// The first part of a push that the server did not take, and what it says about it; none when nothing was answered.
/// What is said is for people: where the refs are decides.
pub(super) fn refusal(answer: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(answer);
    let mut refused = text.lines().filter_map(|line| line.strip_prefix("!\t"));
    // A part that only went down with the others says less than the one that took them down.
    let first = refused.next()?;
    let (pair, said) = first.split_once('\t').unwrap_or((first, ""));
    Some((pair.rsplit(':').next().unwrap_or(pair).to_owned(), plain(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "d865d0db2298c5a66ce4e426f482857c084d81ec";
    const B: &str = "174a9c99bd0733217a2efc7f2f0dbcf054b36cd7";

    #[test]
    fn branches_and_our_places_are_kept() {
        let answer = format!(
            "ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{B}\trefs/autopack/fence\n{A}\trefs/heads/autopack/r1\n{A}\trefs/heads/main\n\
             ref: refs/heads/main\trefs/heads/alias\n{A}\trefs/heads/alias\n{A}\trefs/pull/1/head\n{B}\trefs/tags/save-before-r-p\n\
             {A}\trefs/tags/save-before-r-p^{{}}\n{A}\trefs/tags/v1\n"
        );
        let listing = Listing::parse(answer.as_bytes()).unwrap();
        assert_eq!(listing.refs.len(), 5);
        assert_eq!(listing.head().branch.as_deref(), Some("refs/heads/main"));
        assert!(matches!(listing.tip("refs/heads/alias"), Err(HubError::Symbolic { .. })));
        assert_eq!(listing.tip("refs/tags/save-before-r-p").unwrap().unwrap().to_string(), B);
        assert!(listing.collision("refs/heads/autopack").is_some() && listing.collision("refs/heads/main/x").is_some());
        assert!(listing.collision("refs/heads/autopack/r2").is_none());
        assert_eq!(listing.below("refs/heads/autopack/").count(), 1);
        assert_eq!(Listing::parse(b"").unwrap(), Listing::default());
        for bad in ["x", "no id\trefs/heads/x", &format!("{A}00\trefs/heads/x")] {
            assert!(Listing::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_names_its_ref() {
        let answer =
            format!("To x\n!\t{A}:refs/heads/y\t[remote rejected] (hook\u{7} declined)\n!\t{B}:refs/z\t[x]\nDone\n");
        let (name, said) = refusal(answer.as_bytes()).unwrap();
        assert_eq!((name.as_str(), said.as_str()), ("refs/heads/y", "[remote rejected] (hook  declined)"));
        assert_eq!(refusal(b"To x\n*\ta:b\t[new branch]\nDone\n"), None);
    }
}
