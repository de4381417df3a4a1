//! A checkout of one commit that is only looked at: a small repository of its own that borrows the mirror's objects,
//! so that a scan finds what it would find in a fresh clone. It goes away with its value.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use git2::{Repository, RepositoryInitOptions};
use tempfile::TempDir;

use super::super::open::{self, to_git};
use super::super::tree;
use super::warm::Bounds;
use super::{Mirror, MirrorError, checkout, io_error};
use crate::domain::ids::Oid;

/// The folder of such checkouts.
const COPIES: &str = ".scan";

/// Attributes of this checkout that no file of the commit overrules: its files are what the objects are, byte for
/// byte.
const RAW: &[u8] = b"* -text -eol -ident -filter -working-tree-encoding\n";

/// A checkout to be looked at.
#[derive(Debug)]
pub struct ScanCopy(TempDir);

impl ScanCopy {
    /// The top folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Mirror {
    /// Where checkouts to be scanned are; those of an earlier life are nobody's.
    #[must_use]
    pub fn scan_copies(&self) -> PathBuf {
        self.root.join(COPIES)
    }

    /// Checks a commit out to be scanned, on `branch`, or on none. No filter, hook or program of it runs.
    ///
    /// # Errors
    /// As [`Mirror::create`].
    pub fn scan_copy(&self, commit: Oid, branch: Option<&str>) -> Result<ScanCopy, MirrorError> {
        let mirror = self.repository()?;
        let tree = tree::tree_of(&mirror, commit)?;
        let plan = checkout::Plan::of(&mirror.odb()?, tree)?;
        let copies = self.scan_copies();
        fs::create_dir_all(&copies).map_err(io_error(&copies))?;
        let folder = tempfile::Builder::new().prefix("commit-").tempdir_in(&copies).map_err(io_error(&copies))?;
        let copy = self.repository_in(folder.path())?;
        let head = branch.map(|name| format!("refs/heads/{name}"));
        match head.filter(|name| git2::Reference::is_valid_name(name)) {
            Some(name) => {
                copy.reference(&name, to_git(commit), true, "scan")?;
                copy.set_head(&name)?;
            }
            None => copy.set_head_detached(to_git(commit))?,
        }
        let mut index = copy.index()?;
        index.read_tree(&copy.find_tree(to_git(tree))?)?;
        index.write()?;
        let dir = checkout::open_dir(folder.path()).map_err(io_error(folder.path()))?;
        let bounds = Bounds { helped: true, most_bytes: u64::MAX, wanted: &|| true };
        self.fill(&plan, dir.as_fd(), folder.path(), bounds)?;
        Ok(ScanCopy(folder))
    }

    /// An empty repository that has the mirror's objects.
    fn repository_in(&self, folder: &Path) -> Result<Repository, MirrorError> {
        let mut options = RepositoryInitOptions::new();
        options.external_template(false).initial_head("refs/heads/none");
        let copy = Repository::init_opts(folder, &options)?;
        let git_dir = folder.join(".git");
        let objects = self.git_dir().join("objects");
        open::borrow_objects(&git_dir, &objects).map_err(io_error(&objects))?;
        let info = git_dir.join("info");
        fs::create_dir_all(&info).map_err(io_error(&info))?;
        fs::write(info.join("attributes"), RAW).map_err(io_error(&info))?;
        drop(copy);
        // Opened anew: what it borrows is looked at when it is opened.
        Ok(open::open(folder)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::status::WorkTree;
    use super::super::tests::Fixture;
    use super::*;

    #[test]
    fn a_copy_is_clean_whatever_its_attributes_say_and_goes_away() {
        let f = Fixture::new();
        let commit = f.commit(&[
            (0o100_644, ".gitattributes", "* text eol=crlf ident filter=evil\n"),
            (0o100_644, ".gitignore", "b.txt\n"),
            (0o100_644, "a.txt", "one\r\ntwo $Id: 0 $\n"),
            (0o100_644, "b.txt", "ignored and tracked\n"),
            (0o100_755, "bin/run", "#!/bin/sh\n"),
            (0o120_000, "link", "a.txt"),
        ]);
        let mirror = f.mirror();
        let copy = mirror.scan_copy(commit, Some("main")).unwrap();
        let work = WorkTree::open(copy.path()).unwrap();
        assert_eq!(work.changes().unwrap(), []);
        let checkout = work.checkout();
        assert_eq!((checkout.branch.as_deref(), checkout.head), (Some("main"), Some(commit)));
        assert_eq!(work.problems().unwrap(), [""; 0]);
        let detached = mirror.scan_copy(commit, None).unwrap();
        assert_eq!(WorkTree::open(detached.path()).unwrap().checkout().branch, None);
        let path = copy.path().to_path_buf();
        drop((work, copy));
        assert!(!path.exists() && mirror.list().unwrap().is_empty());
    }

    #[test]
    fn a_commit_that_leads_outside_is_refused() {
        let f = Fixture::new();
        let commit = f.commit(&[(0o100_644, ".git", "owned\n")]);
        let mirror = f.mirror();
        assert!(matches!(mirror.scan_copy(commit, None), Err(MirrorError::UnsafePath { .. })));
        assert!(!mirror.scan_copies().exists());
    }
}
