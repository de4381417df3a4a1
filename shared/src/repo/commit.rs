//! Commit objects that are really there. libgit2's own verb says yes where the object could not be written (a full
//! disk), and gives the id of nothing.

use git2::{ObjectType, Repository, Signature};

use super::open::{from_git, to_git};
use crate::domain::ids::Oid;

/// Writes a commit of `tree`; no ref moves.
///
/// # Errors
/// When the tree or a parent is missing, or the object cannot be written.
pub fn write(
    repo: &Repository,
    who: &Signature<'_>,
    message: &str,
    tree: Oid,
    parents: &[Oid],
) -> Result<Oid, git2::Error> {
    let tree = repo.find_tree(to_git(tree))?;
    let parents = parents.iter().map(|oid| repo.find_commit(to_git(*oid))).collect::<Result<Vec<_>, _>>()?;
    let parents: Vec<_> = parents.iter().collect();
    let bytes = repo.commit_create_buffer(who, who, message, &tree, &parents)?;
    Ok(from_git(repo.odb()?.write(ObjectType::Commit, &bytes)?))
}

#[cfg(test)]
mod tests {
    use git2::Time;

    use super::super::{open, tree};
    use super::*;

    #[test]
    fn a_commit_that_cannot_be_written_is_an_error_and_not_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let repo = open::init_bare(dir.path()).unwrap();
        let tree = tree::write(&repo.odb().unwrap(), Vec::new()).unwrap();
        let who = Signature::new("t", "t@example.invalid", &Time::new(0, 0)).unwrap();
        let id = write(&repo, &who, "m\n", tree, &[]).unwrap().to_string();
        let object = dir.path().join("objects").join(&id[..2]).join(&id[2..]);
        assert!(object.is_file());

        // In place of the object's folder there is a file: nothing can be written below it.
        let folder = object.parent().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::write(folder, "").unwrap();
        let repo = open::open_bare(dir.path()).unwrap();
        let found = repo.find_tree(to_git(tree)).unwrap();
        let said = repo.commit(None, &who, &who, "m\n", &found, &[]).map(|id| id.to_string());
        assert_eq!(said.unwrap(), id, "libgit2 tells failures now: this file is no longer needed");
        write(&repo, &who, "m\n", tree, &[]).unwrap_err();
    }
}
