//! Puts a model's whole files into the tree. All of them are checked before the first is touched: within the scope of
//! the phase, and where nothing but a plain file stands. No link is followed.

use std::io;
use std::path::Path;

use autopack_shared::domain::path::PathRoots;

use super::answer::Edit;
use crate::builder::BuildError;
use crate::scan::beneath::Beneath;

/// A file that is larger is not replaced: it could not have been shown whole.
const MOST: u64 = 64 << 20;

/// Writes and deletes.
pub(super) fn edits(tree: &Path, edits: &[Edit], scope: &[String]) -> Result<(), BuildError> {
    let scope = PathRoots::new(scope.to_vec()).map_err(|e| BuildError::of("unsupported", &e))?;
    for edit in edits {
        let key = edit.path().key();
        if !scope.is_empty() && scope.find(&key.parts()).is_none() {
            let text = format!("{} is outside of the scope ({})", edit.path(), scope.entries().join(", "));
            return Err(BuildError::new("out_of_scope", text));
        }
    }
    let root = Beneath::open(tree).map_err(|e| BuildError::of("workspace", &e))?;
    for edit in edits {
        check(&root, edit)?;
    }
    for edit in edits {
        let done = match edit {
            Edit::Write { path, text } => root.write(path.as_str(), text.as_bytes()),
            Edit::Delete { path } => root.remove(path.as_str()),
        };
        done.map_err(|e| {
            let BuildError { reason, message, .. } = BuildError::of("patch_refused", &e);
            BuildError::new(reason, format!("{}: {message}", edit.path()))
        })?;
    }
    Ok(())
}

fn check(root: &Beneath, edit: &Edit) -> Result<(), BuildError> {
    let path = edit.path();
    let refuse = |why: &str| Err(BuildError::new("patch_refused", format!("{path}: {why}")));
    match root.read(path.as_str(), MOST) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match edit {
            Edit::Write { .. } => Ok(()),
            Edit::Delete { .. } => refuse("there is no such file to delete"),
        },
        Err(_) => refuse("what stands there, or on the way there, is no plain file"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use autopack_shared::domain::path::RepoPath;

    use super::*;

    fn write(path: &str) -> Edit {
        Edit::Write { path: RepoPath::parse(path).unwrap(), text: "new\n".to_owned() }
    }

    fn delete(path: &str) -> Edit {
        Edit::Delete { path: RepoPath::parse(path).unwrap() }
    }

    #[test]
    fn nothing_is_written_outside_of_the_tree_or_its_scope() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("src")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("canary"), "c").unwrap();
        std::fs::write(tree.join("src/a"), "old").unwrap();
        symlink(&outside, tree.join("src/way")).unwrap();
        symlink(outside.join("canary"), tree.join("src/link")).unwrap();
        let scope = ["src/".to_owned()];
        for (edit, reason) in [
            (write("src/way/new"), "patch_refused"),
            (write("src/way/canary"), "patch_refused"),
            (write("src/link"), "patch_refused"),
            (delete("src/link"), "patch_refused"),
            (delete("src/nothing"), "patch_refused"),
            (write("src/a/b"), "patch_refused"),
            (write("README.md"), "out_of_scope"),
            (write("srcs/a"), "out_of_scope"),
        ] {
            let error = edits(&tree, &[write("src/a"), edit.clone()], &scope).unwrap_err();
            assert_eq!(error.reason, reason, "{edit:?}: {error}");
            assert_eq!(std::fs::read_to_string(tree.join("src/a")).unwrap(), "old", "all or nothing");
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "c");
        edits(&tree, &[delete("src/a"), write("src/deep/b")], &scope).unwrap();
        assert!(!tree.join("src/a").exists() && tree.join("src/deep/b").exists());
    }
}
