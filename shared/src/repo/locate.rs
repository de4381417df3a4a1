//! Finds the repository that a person standing in some folder means, and the folder its work trees share.

use std::path::{Path, PathBuf};

use super::open::open;

/// The top folder of the repository around `start`: the nearest folder upwards that holds `.git`, or that is a git
/// folder itself.
#[must_use]
pub fn around(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|dir| dir.join(".git").exists() || is_git_dir(dir)).map(Path::to_path_buf)
}

/// The folder that all work trees of a repository share; none where `root` is no repository.
#[must_use]
pub fn common_dir(root: &Path) -> Option<PathBuf> {
    open(root).ok()?.commondir().canonicalize().ok()
}

/// Whether a folder is a repository that can be used.
#[must_use]
pub fn is_repository(root: &Path) -> bool {
    open(root).is_ok()
}

/// Whether a folder is a repository without a work tree, and not the git folder of one that has it.
#[must_use]
pub fn is_bare(root: &Path) -> bool {
    open(root).is_ok_and(|repo| repo.is_bare())
}

/// Whether a folder is a git folder itself: that of a bare repository, or the one called `.git`.
#[must_use]
pub fn is_git_dir(dir: &Path) -> bool {
    dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_repository_upwards_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        git2::Repository::init(dir.path()).unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(around(&deep).as_deref(), Some(dir.path()));
        let git = dir.path().join(".git");
        assert_eq!(around(&git).as_deref(), Some(git.as_path()));
        assert!(is_git_dir(&git) && !is_git_dir(dir.path()));
        git2::Repository::init_bare(deep.join("bare.git")).unwrap();
        assert_eq!(around(&deep.join("bare.git/refs")), Some(deep.join("bare.git")));
        assert!(is_bare(&deep.join("bare.git")) && is_repository(dir.path()));
        assert!(!is_bare(dir.path()) && !is_bare(&git) && !is_repository(&deep));
    }
}
