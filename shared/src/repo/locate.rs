//! Finds the repository a person means and what they name in it: revisions, ranges, files at a commit. Reads only;
//! what has to be written for a judgement goes into a scratch repository that is gone afterwards.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Repository};

use super::open::{OpenError, borrow_objects, from_git, init_bare, open, to_git};
use crate::domain::ids::Oid;

/// The largest policy file that is read from a commit, in bytes.
const MAX_FILE: usize = 1 << 20;

/// Why something could not be found.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No commit has this name.
    #[error("no commit is called {0:?}")]
    Revision(String),
    /// The text names no range.
    #[error("{0:?} is no range of the form A..B")]
    Range(String),
    /// A file is too large to be a policy file.
    #[error("{path} is {size} bytes, more than the {MAX_FILE} that are read")]
    TooLarge {
        /// Its path in the commit.
        path: String,
        /// Its size.
        size: usize,
    },
    /// No scratch repository could be made.
    #[error("cannot make a scratch repository")]
    Scratch(#[from] std::io::Error),
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// The folder that all work trees of a repository share; none where `root` is no repository.
#[must_use]
pub fn common_dir(root: &Path) -> Option<PathBuf> {
    open(root).ok()?.commondir().canonicalize().ok()
}

/// The top folder of the repository around `start`: the nearest folder upwards that holds `.git`, or that is a git
/// folder itself.
#[must_use]
pub fn around(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|dir| dir.join(".git").exists() || is_git_dir(dir)).map(Path::to_path_buf)
}

fn is_git_dir(dir: &Path) -> bool {
    dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir()
}

/// A repository that is only looked at.
pub struct Reader {
    repo: Repository,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.repo.path()).finish()
    }
}

impl Reader {
    /// Opens the repository whose top folder or git folder is exactly `path`.
    ///
    /// # Errors
    /// [`LocateError::Open`] says why not.
    pub fn open(path: &Path) -> Result<Self, LocateError> {
        Ok(Self { repo: open(path)? })
    }

    /// The repository itself, for the readers of this room.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repo
    }

    /// The commit of a revision: a branch, a tag, `HEAD~2`, an id or the start of one.
    ///
    /// # Errors
    /// [`LocateError::Revision`] when nothing has this name, or what has it is no commit.
    pub fn commit(&self, revision: &str) -> Result<Oid, LocateError> {
        let object = self.repo.revparse_single(revision).and_then(|found| found.peel(ObjectType::Commit));
        match object {
            Ok(commit) => Ok(from_git(commit.id())),
            Err(error) if error.class() == git2::ErrorClass::Odb && error.code() != ErrorCode::NotFound => Err(error.into()),
            Err(_) => Err(LocateError::Revision(revision.to_owned())),
        }
    }

    /// Both ends of `A..B`; an end left out is `HEAD`.
    ///
    /// # Errors
    /// [`LocateError::Range`] for another form, [`LocateError::Revision`] for an unknown end.
    pub fn range(&self, range: &str) -> Result<(Oid, Oid), LocateError> {
        let bad = || LocateError::Range(range.to_owned());
        let (from, to) = range.split_once("..").ok_or_else(bad)?;
        if to.starts_with('.') || (from.is_empty() && to.is_empty()) {
            return Err(bad());
        }
        let end = |name: &str| self.commit(if name.is_empty() { "HEAD" } else { name });
        Ok((end(from)?, end(to)?))
    }

    /// The tree of a commit.
    ///
    /// # Errors
    /// When the commit cannot be read.
    pub fn tree(&self, commit: Oid) -> Result<Oid, LocateError> {
        Ok(from_git(self.repo.find_commit(to_git(commit))?.tree_id()))
    }

    /// The text of a file at a commit; none where there is no such file. Bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// [`LocateError::TooLarge`], or when objects are missing.
    pub fn text(&self, commit: Oid, path: &str) -> Result<Option<String>, LocateError> {
        let tree = self.repo.find_commit(to_git(commit))?.tree()?;
        let entry = match tree.get_path(Path::new(path)) {
            Ok(entry) => entry,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let odb = self.repo.odb()?;
        let (size, kind) = odb.read_header(entry.id())?;
        if kind != ObjectType::Blob {
            return Ok(None);
        }
        if size > MAX_FILE {
            return Err(LocateError::TooLarge { path: path.to_owned(), size });
        }
        Ok(Some(String::from_utf8_lossy(odb.read(entry.id())?.data()).into_owned()))
    }

    /// The branch that is checked out, as a full ref name; none where HEAD is detached.
    #[must_use]
    pub fn branch(&self) -> Option<String> {
        let head = self.repo.find_reference("HEAD").ok()?;
        head.symbolic_target().ok().flatten().map(str::to_owned)
    }

    /// Whether the repository has no work tree.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.repo.is_bare()
    }
}

/// A bare repository in a temporary folder that can read all objects of another; whatever is written for a judgement
/// lands here and never in the other one.
pub struct Scratch {
    repo: Repository,
    _dir: tempfile::TempDir,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    /// A scratch repository over the objects of `reader`.
    ///
    /// # Errors
    /// When the temporary folder cannot be written.
    pub fn over(reader: &Reader) -> Result<Self, LocateError> {
        let dir = tempfile::Builder::new().prefix("autopack-scratch-").tempdir()?;
        let path = dir.path().join("scratch.git");
        init_bare(&path)?;
        borrow_objects(&path, &reader.repo.commondir().join("objects"))?;
        // Opened again, because borrowed objects are read when a repository is opened.
        Ok(Self { repo: open(&path)?, _dir: dir })
    }

    /// The repository to write to.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(dir: &Path) -> Oid {
        let repo = Repository::init(dir).unwrap();
        let blob = repo.blob(b"[policy]\n").unwrap();
        let mut tree = repo.treebuilder(None).unwrap();
        tree.insert("autopack.toml", blob, 0o100_644).unwrap();
        let tree = repo.find_tree(tree.write().unwrap()).unwrap();
        let who = git2::Signature::new("a", "a@b", &git2::Time::new(0, 0)).unwrap();
        from_git(repo.commit(Some("refs/heads/main"), &who, &who, "one", &tree, &[]).unwrap())
    }

    #[test]
    fn revisions_ranges_and_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let oid = repository(dir.path());
        let reader = Reader::open(dir.path()).unwrap();
        assert_eq!(reader.commit("main").unwrap(), oid);
        assert_eq!(reader.range("main..main").unwrap(), (oid, oid));
        assert!(matches!(reader.range("main"), Err(LocateError::Range(_))));
        assert!(matches!(reader.range("main...main"), Err(LocateError::Range(_))));
        assert!(matches!(reader.commit("nope"), Err(LocateError::Revision(_))));
        assert_eq!(reader.text(oid, "autopack.toml").unwrap().as_deref(), Some("[policy]\n"));
        assert_eq!(reader.text(oid, ".autopack/anchor_v2.json").unwrap(), None);
    }

    #[test]
    fn a_scratch_repository_reads_the_other_and_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let oid = repository(dir.path());
        let reader = Reader::open(dir.path()).unwrap();
        let scratch = Scratch::over(&reader).unwrap();
        assert!(scratch.repository().find_commit(to_git(oid)).is_ok());
        let new = scratch.repository().blob(b"only here").unwrap();
        assert!(reader.repository().find_blob(new).is_err());
    }

    #[test]
    fn the_nearest_repository_upwards_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        repository(dir.path());
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(around(&deep).as_deref(), Some(dir.path()));
        assert_eq!(around(&dir.path().join(".git")).as_deref(), Some(dir.path().join(".git").as_path()));
    }
}
