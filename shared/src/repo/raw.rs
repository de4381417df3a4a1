//! Trees exactly as they are stored. libgit2 rounds modes and refuses or tidies names; whoever judges a change must see
//! what is really there, and whoever writes one must not change what it does not touch.

use git2::{ObjectType, Odb};

use crate::domain::change::FileMode;
use crate::domain::ids::Oid;
use crate::repo::open::{from_git, to_git};

/// An object that cannot be read as what it should be.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The object database has no such object, or it is damaged.
    #[error("object {id} cannot be read")]
    Object {
        /// The object.
        id: Oid,
        /// What libgit2 says.
        source: git2::Error,
    },
    /// It is there and of another kind.
    #[error("object {id} is no {expected}")]
    Kind {
        /// The object.
        id: Oid,
        /// What it should be.
        expected: &'static str,
    },
    /// A tree whose bytes do not parse.
    #[error("tree {id} is damaged")]
    Tree {
        /// The tree.
        id: Oid,
    },
}

/// One entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEntry {
    /// The mode as stored.
    pub mode: FileMode,
    /// Whether the mode is written with leading zeros, which git does not do.
    pub padded: bool,
    /// The object.
    pub id: Oid,
}

impl RawEntry {
    /// Whether it is a directory. Anything but the one mode that git writes is taken for a leaf, and refused as one.
    #[must_use]
    pub fn is_tree(&self) -> bool {
        self.mode == FileMode::TREE
    }
}

/// A tree: names as bytes, in the order they are stored.
pub type RawTree = Vec<(Vec<u8>, RawEntry)>;

/// Reads a tree.
///
/// # Errors
/// [`RawError`] when it is missing, no tree, or damaged.
pub fn read_tree(odb: &Odb<'_>, id: Oid) -> Result<RawTree, RawError> {
    let object = odb.read(to_git(id)).map_err(|source| RawError::Object { id, source })?;
    if object.kind() != ObjectType::Tree {
        return Err(RawError::Kind { id, expected: "tree" });
    }
    parse_tree(object.data()).ok_or(RawError::Tree { id })
}

/// Reads the bytes of a blob.
///
/// # Errors
/// [`RawError`] when it is missing or no blob.
pub fn read_blob<'a>(odb: &'a Odb<'_>, id: Oid) -> Result<git2::OdbObject<'a>, RawError> {
    let object = odb.read(to_git(id)).map_err(|source| RawError::Object { id, source })?;
    if object.kind() == ObjectType::Blob { Ok(object) } else { Err(RawError::Kind { id, expected: "blob" }) }
}

/// The length of a blob, without its bytes.
///
/// # Errors
/// [`RawError`] when it is missing or no blob.
pub fn blob_size(odb: &Odb<'_>, id: Oid) -> Result<u64, RawError> {
    let (size, kind) = odb.read_header(to_git(id)).map_err(|source| RawError::Object { id, source })?;
    if kind == ObjectType::Blob { Ok(size as u64) } else { Err(RawError::Kind { id, expected: "blob" }) }
}

/// The tree of a commit.
///
/// # Errors
/// [`RawError`] when there is no such commit.
pub fn tree_of_commit(repo: &git2::Repository, commit: Oid) -> Result<Oid, RawError> {
    let found = repo.find_commit(to_git(commit)).map_err(|source| RawError::Object { id: commit, source })?;
    Ok(from_git(found.tree_id()))
}

/// Writes a tree in the order git wants, modes as they are.
///
/// # Errors
/// What libgit2 says.
pub fn write_tree(odb: &Odb<'_>, mut tree: RawTree) -> Result<Oid, git2::Error> {
    let sort_key = |(name, entry): &(Vec<u8>, RawEntry)| {
        let mut key = name.clone();
        if entry.is_tree() {
            key.push(b'/');
        }
        key
    };
    tree.sort_by_cached_key(sort_key);
    let mut data = Vec::new();
    for (name, entry) in &tree {
        let zero = if entry.padded { "0" } else { "" };
        data.extend_from_slice(format!("{zero}{:o} ", entry.mode.0).as_bytes());
        data.extend_from_slice(name);
        data.push(0);
        data.extend_from_slice(entry.id.as_bytes());
    }
    odb.write(ObjectType::Tree, &data).map(from_git)
}

/// Finds a path in a tree.
///
/// # Errors
/// [`RawError`] when a tree on the way cannot be read.
pub fn lookup(odb: &Odb<'_>, root: Oid, path: &[&[u8]]) -> Result<Option<RawEntry>, RawError> {
    let mut tree = root;
    for (index, name) in path.iter().enumerate() {
        let Some((_, entry)) = read_tree(odb, tree)?.into_iter().find(|(own, _)| own == name) else {
            return Ok(None);
        };
        if index + 1 == path.len() {
            return Ok(Some(entry));
        }
        if !entry.is_tree() {
            return Ok(None);
        }
        tree = entry.id;
    }
    Ok(None)
}

/// Whether a tree has something at a path; a name that ends in `/` wants a directory with something in it.
///
/// # Errors
/// [`RawError`] when a tree on the way cannot be read.
pub fn holds(repo: &git2::Repository, root: Oid, name: &str) -> Result<bool, RawError> {
    let odb = repo.odb().map_err(|source| RawError::Object { id: root, source })?;
    let path: Vec<&[u8]> = name.trim_end_matches('/').split('/').map(str::as_bytes).collect();
    let found = lookup(&odb, root, &path)?;
    // Git has no empty directories.
    Ok(found.is_some_and(|entry| entry.is_tree() || !name.ends_with('/')))
}

/// The text of a regular file in a tree; nothing where there is none, or one of more than `most` bytes.
///
/// # Errors
/// [`RawError`] when an object cannot be read.
pub fn read_file(repo: &git2::Repository, root: Oid, path: &str, most: u64) -> Result<Option<Vec<u8>>, RawError> {
    let odb = repo.odb().map_err(|source| RawError::Object { id: root, source })?;
    let parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    match lookup(&odb, root, &parts)?.filter(|entry| entry.mode.is_regular()) {
        Some(entry) if blob_size(&odb, entry.id)? <= most => Ok(Some(read_blob(&odb, entry.id)?.data().to_vec())),
        Some(_) | None => Ok(None),
    }
}

fn parse_tree(mut data: &[u8]) -> Option<RawTree> {
    let mut tree = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ')?;
        let digits = std::str::from_utf8(data.get(..space)?).ok()?;
        if digits.is_empty() || digits.len() > 7 || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'7')) {
            return None;
        }
        let mode = FileMode(u32::from_str_radix(digits, 8).ok()?);
        data = data.get(space + 1..)?;
        let end = data.iter().position(|byte| *byte == 0)?;
        let name = data.get(..end)?.to_vec();
        let id = Oid::from_bytes(data.get(end + 1..end + 21)?.try_into().ok()?);
        data = data.get(end + 21..)?;
        tree.push((name, RawEntry { mode, padded: digits.starts_with('0'), id }));
    }
    Some(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_trees_survive_reading_and_writing() {
        let dir = tempfile::tempdir().unwrap();
        let repo = git2::Repository::init_bare(dir.path()).unwrap();
        let odb = repo.odb().unwrap();
        let id = from_git(odb.write(ObjectType::Blob, b"x").unwrap());
        let entry = |mode| RawEntry { mode: FileMode(mode), padded: false, id };
        let tree = vec![
            (b"a".to_vec(), entry(0o100_664)),
            (b"a.b".to_vec(), entry(0o104_755)),
            (b"\xff".to_vec(), RawEntry { padded: true, ..entry(0o100_644) }),
        ];
        let written = write_tree(&odb, tree.clone()).unwrap();
        assert_eq!(read_tree(&odb, written).unwrap(), tree);
        assert!(matches!(read_tree(&odb, id), Err(RawError::Kind { .. })));
        assert!(parse_tree(b"100644 a\0short").is_none());
        assert!(parse_tree(b"9 a\0aaaaaaaaaaaaaaaaaaaa").is_none());
    }
}
