//! The digest of a checkout: two checkouts with equal digests hold the same bytes where a scan would look.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use git2::{Repository, RepositoryOpenFlags};
use sha2::{Digest as _, Sha256};

use super::{Change, StatusError, Tracked, TrackedKind, WorkTree, oid};
use crate::domain::ids::{Digest, Oid};

/// A submodule: the commit the index records, and the one that is checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmoduleHead {
    /// Where it is.
    pub path: Vec<u8>,
    /// What the index records.
    pub recorded: Oid,
    /// What is checked out; none where it was never initialised.
    pub head: Option<Oid>,
}

impl WorkTree {
    /// The submodules among the entries of the index, with their heads.
    #[must_use]
    pub fn submodules(&self, tracked: &[Tracked]) -> Vec<SubmoduleHead> {
        let gitlinks = tracked.iter().filter(|e| e.kind == TrackedKind::Submodule);
        gitlinks
            .map(|entry| SubmoduleHead {
                path: entry.path.clone(),
                recorded: entry.id,
                head: nested_head(&self.root.join(as_path(&entry.path))),
            })
            .collect()
    }

    /// SHA-256 over the tree of HEAD, the entries of the index, path, mode and content of every file that differs
    /// from them and is not ignored, and the heads of submodules.
    ///
    /// # Errors
    /// [`StatusError::Io`] where a changed file cannot be read.
    pub fn digest(
        &self,
        tracked: &[Tracked],
        changes: &[Change],
        submodules: &[SubmoduleHead],
    ) -> Result<Digest, StatusError> {
        let mut hash = Sha256::new();
        let head = self.head_tree().map(|tree| oid(tree.id())).unwrap_or(Oid::ZERO);
        hash.update(b"workspace/1\0head\0");
        hash.update(head.as_bytes());
        hash.update(b"index\0");
        for entry in tracked {
            hash.update(entry.mode.to_be_bytes());
            hash.update([entry.stage]);
            hash.update(entry.id.as_bytes());
            text(&mut hash, &entry.path);
        }
        hash.update(b"changes\0");
        let mut buffer = vec![0; 64 * 1024];
        for change in changes {
            text(&mut hash, &change.path);
            let path = self.root.join(as_path(&change.path));
            let content = content(&path, &mut buffer);
            let (mode, content) = content.map_err(|source| StatusError::Io { path, source })?;
            hash.update(mode.to_be_bytes());
            hash.update(content);
        }
        hash.update(b"submodules\0");
        for submodule in submodules {
            text(&mut hash, &submodule.path);
            hash.update(submodule.head.unwrap_or(Oid::ZERO).as_bytes());
        }
        Ok(Digest::from_bytes(hash.finalize().into()))
    }
}

fn text(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

pub(super) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// The commit checked out in a repository below the root, without searching upwards.
fn nested_head(path: &Path) -> Option<Oid> {
    let none: [PathBuf; 0] = [];
    let repo = Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, none).ok()?;
    let head = repo.head().ok()?;
    head.target().map(oid)
}

/// git's mode and the SHA-256 of what stands at a path: 0 where nothing does, and for a folder that is a repository
/// of its own the commit that is checked out there.
fn content(path: &Path, buffer: &mut [u8]) -> io::Result<(u32, [u8; 32])> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok((0, [0; 32]));
        }
        Err(e) => return Err(e),
    };
    if found.is_symlink() {
        let target = fs::read_link(path)?.into_os_string().into_vec();
        return Ok((0o120_000, Sha256::digest(target).into()));
    }
    if found.is_dir() {
        let head = nested_head(path).unwrap_or(Oid::ZERO);
        return Ok((0o160_000, Sha256::digest(head.as_bytes()).into()));
    }
    if !found.is_file() {
        return Ok((1, [0; 32]));
    }
    let mode = if found.mode() & 0o100 == 0 { 0o100_644 } else { 0o100_755 };
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    Ok((mode, hash_file(file, buffer)?))
}

fn hash_file(mut file: File, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    loop {
        match file.read(buffer)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}
