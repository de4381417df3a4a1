//! What a tree needs that another does not have. Both are walked side by side and only where they differ, so that it
//! costs what changed and not what is there.

use std::collections::HashSet;

use git2::Odb;

use super::super::open::to_git;
use super::{Entry, TreeError, by_name, deep, read};
use crate::domain::ids::Oid;
use crate::domain::path::names_git;

/// Every tree and blob that `result` reaches and `base`, which is whole, does not have; one that `base` has in another
/// folder may be among them. Each object is visited once. A tree that git would refuse is refused.
///
/// # Errors
/// [`TreeError::Missing`] when the result is not whole, [`TreeError::GitInternal`], [`TreeError::TooComplex`].
pub fn fresh(odb: &Odb<'_>, base: Oid, result: Oid) -> Result<Vec<Oid>, TreeError> {
    let mut seen = known(odb, base, result)?;
    let mut found = Vec::new();
    let mut open = vec![(result, String::new(), 0)];
    while let Some((tree, path, depth)) = open.pop() {
        if !seen.insert(tree) {
            continue;
        }
        deep(depth)?;
        found.push(tree);
        for entry in read(odb, tree)? {
            let path = || format!("{path}{}", String::from_utf8_lossy(&entry.name));
            if names_git(&entry.name) {
                return Err(TreeError::GitInternal { path: path() });
            }
            if entry.is_tree() {
                open.push((entry.oid, format!("{}/", path()), depth + 1));
            } else if !entry.is_gitlink() && seen.insert(entry.oid) {
                if !odb.exists(to_git(entry.oid)) {
                    return Err(TreeError::Missing { oid: entry.oid });
                }
                found.push(entry.oid);
            }
        }
    }
    Ok(found)
}

/// What the base has in the folders that differ: trees with all that is below them, and blobs.
fn known(odb: &Odb<'_>, base: Oid, result: Oid) -> Result<HashSet<Oid>, TreeError> {
    let (mut known, mut looked) = (HashSet::from([base]), HashSet::new());
    let mut open = vec![(base, result, 0)];
    while let Some((base, result, depth)) = open.pop() {
        if base == result || !looked.insert(result) {
            continue;
        }
        deep(depth)?;
        let mut before = by_name(odb, Some(base))?;
        // A submodule's commit is no object of this repository.
        known.extend(before.values().filter(|entry| !entry.is_gitlink()).map(|entry| entry.oid));
        for entry in read(odb, result)?.iter().filter(|entry| entry.is_tree()) {
            if let Some(was) = before.remove(&entry.name).filter(Entry::is_tree) {
                open.push((was.oid, entry.oid, depth + 1));
            }
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use git2::ObjectType;

    use super::super::super::open::{from_git, init_bare};
    use super::super::write;
    use super::*;

    fn store() -> (tempfile::TempDir, git2::Repository) {
        let dir = tempfile::tempdir().unwrap();
        let repo = init_bare(dir.path()).unwrap();
        (dir, repo)
    }

    fn blob(odb: &Odb<'_>, text: &str) -> Oid {
        from_git(odb.write(ObjectType::Blob, text.as_bytes()).unwrap())
    }

    fn tree(odb: &Odb<'_>, entries: &[(u32, &str, Oid)]) -> Oid {
        let entry =
            |(mode, name, oid): &(u32, &str, Oid)| Entry { mode: *mode, name: name.as_bytes().to_vec(), oid: *oid };
        write(odb, entries.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn only_what_is_new_is_found_and_what_moved_beside_is_not() {
        let (_dir, repo) = store();
        let odb = repo.odb().unwrap();
        let (a, b, c) = (blob(&odb, "a"), blob(&odb, "b"), blob(&odb, "c"));
        let inner = tree(&odb, &[(0o100_644, "a", a)]);
        let base = tree(&odb, &[(0o100_644, "b", b), (0o040_000, "d", inner), (0o160_000, "sub", c)]);
        assert_eq!(fresh(&odb, base, base).unwrap(), []);
        let moved = tree(&odb, &[(0o100_755, "b2", b), (0o040_000, "d2", inner)]);
        assert_eq!(fresh(&odb, base, moved).unwrap(), [moved]);
        let changed = tree(&odb, &[(0o100_644, "a", b)]);
        let result = tree(&odb, &[(0o100_644, "b", b), (0o040_000, "d", changed)]);
        assert_eq!(fresh(&odb, base, result).unwrap(), [result, changed]);
    }

    #[test]
    fn a_submodules_id_or_a_hole_is_no_object_of_the_base() {
        let (_dir, repo) = store();
        let odb = repo.odb().unwrap();
        let hole = Oid::from_bytes([7; 20]);
        let base = tree(&odb, &[(0o160_000, "sub", hole)]);
        for name in ["sub", "x"] {
            let result = tree(&odb, &[(0o100_644, name, hole)]);
            let error = fresh(&odb, base, result).unwrap_err();
            assert!(matches!(error, TreeError::Missing { oid } if oid == hole), "{error}");
        }
        let outer = tree(&odb, &[(0o040_000, "sub", hole)]);
        assert!(matches!(fresh(&odb, base, outer), Err(TreeError::Missing { .. })));
        let git = tree(&odb, &[(0o160_000, ".GIT", hole)]);
        assert!(matches!(fresh(&odb, base, git), Err(TreeError::GitInternal { .. })));
    }

    #[test]
    fn a_tree_bomb_is_walked_once_an_object() {
        let (_dir, repo) = store();
        let odb = repo.odb().unwrap();
        let bomb = |text: &str| {
            (0..10).fold(blob(&odb, text), |oid, level| {
                let mode = if level == 0 { 0o100_644 } else { 0o040_000 };
                let names: Vec<String> = (0..10).map(|n| format!("e{n}")).collect();
                tree(&odb, &names.iter().map(|name| (mode, name.as_str(), oid)).collect::<Vec<_>>())
            })
        };
        let (base, result) = (bomb("x"), bomb("y"));
        assert_eq!(fresh(&odb, base, result).unwrap().len(), 11);
    }
}
