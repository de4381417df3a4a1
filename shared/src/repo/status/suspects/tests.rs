//! Whatever happens to a checkout, the short way tells the same as asking about everything.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::super::WorkTree;
use super::*;

fn git(root: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .current_dir(root)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A clone whose index is younger than every file in it.
fn checkout() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    git(root, &["init", "-q", "-b", "main"]);
    for path in ["a", "b.txt", "d/x", "d/y", "d-e", "d.f", "d/e/f/g", "run.sh", "z/last", ".gitignore"] {
        write(root, path, &format!("text of {path}\n"));
    }
    write(root, ".gitignore", "*.tmp\n/target\n");
    symlink("a", root.join("link")).unwrap();
    git(root, &["add", "-A"]);
    git(root, &["commit", "-q", "-m", "m"]);
    settle(root);
    dir
}

/// Makes every file older than the index, as it is a moment after a clone.
fn settle(root: &Path) {
    let past = ["-exec", "touch", "-h", "-d", "2020-01-01T00:00:00Z", "{}", "+"];
    let touched = Command::new("find").current_dir(root).args([".", "-not", "-path", "./.git/*"]).args(past).status();
    assert!(touched.unwrap().success());
    git(root, &["update-index", "-q", "--really-refresh"]);
}

fn seen(root: &Path) -> Option<Vec<String>> {
    let tree = WorkTree::open(root).unwrap();
    let found = suspects(&tree.repo, &tree.root, tree.index_written)?;
    Some(found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect())
}

#[track_caller]
fn agrees(root: &Path) {
    let tree = WorkTree::open(root).unwrap();
    assert_eq!(tree.changes().unwrap(), tree.changes_of(None).unwrap());
}

#[test]
fn a_clean_checkout_has_no_suspects() {
    let dir = checkout();
    assert_eq!(seen(dir.path()), Some(Vec::new()));
    agrees(dir.path());
}

#[test]
fn each_kind_of_change_is_suspected_and_told_as_before() {
    type Act = fn(&Path);
    let acts: [(&str, Act); 16] = [
        ("a", |root| write(root, "a", "text of A\n")),
        ("d/e/f/g", |root| fs::remove_file(root.join("d/e/f/g")).unwrap()),
        ("new", |root| write(root, "new/deep/file", "1")),
        ("d/new", |root| write(root, "d/new", "1")),
        ("x.tmp", |root| write(root, "x.tmp", "1")),
        ("target", |root| write(root, "target/debug/out", "1")),
        ("run.sh", |root| fs::set_permissions(root.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap()),
        ("link", |root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("b.txt", root.join("link")).unwrap();
        }),
        ("b.txt", |root| {
            fs::remove_file(root.join("b.txt")).unwrap();
            symlink("a", root.join("b.txt")).unwrap();
        }),
        ("staged", |root| {
            write(root, "staged", "1");
            git(root, &["add", "staged"]);
        }),
        ("d-e", |root| git(root, &["rm", "-q", "--cached", "d-e"])),
        ("z/last", |root| git(root, &["rm", "-q", "z/last"])),
        ("a", |root| git(root, &["mv", "a", "moved"])),
        ("d.f", |root| git(root, &["update-index", "--chmod=+x", "d.f"])),
        ("a", |root| git(root, &["update-index", "--assume-unchanged", "a", "--really-refresh"])),
        (".gitignore", |root| write(root, ".gitignore", "")),
    ];
    for (path, act) in acts {
        let dir = checkout();
        act(dir.path());
        if let Some(seen) = seen(dir.path()) {
            assert!(seen.is_empty() || seen.iter().any(|s| s == path), "{path}: {seen:?}");
        }
        agrees(dir.path());
    }
}

#[test]
fn what_is_not_understood_is_left_to_git() {
    type Act = fn(&Path);
    let acts: [Act; 4] = [
        |root| {
            fs::remove_dir_all(root.join("d")).unwrap();
            write(root, "d", "a file");
        },
        |root| fs::remove_dir_all(root.join("d")).unwrap(),
        |root| git(root, &["init", "-q", "d"]),
        |root| (0..=MOST).for_each(|n| write(root, &format!("n{n}"), "")),
    ];
    for act in acts {
        let dir = checkout();
        act(dir.path());
        assert_eq!(seen(dir.path()), None);
        agrees(dir.path());
    }
}

#[test]
fn a_file_as_young_as_the_index_is_suspected() {
    let dir = checkout();
    let tree = WorkTree::open(dir.path()).unwrap();
    let file = rustix::fs::stat(dir.path().join("a")).unwrap();
    let seen = |written| suspects(&tree.repo, &tree.root, Some(written)).unwrap();
    assert!(seen((file.st_mtime, 0)).contains(&b"a".to_vec()));
    assert_eq!(seen((file.st_mtime, 1)), Vec::<Vec<u8>>::new());
}

#[test]
fn conflicts_submodules_and_sparse_checkouts_are_told_as_before() {
    let dir = checkout();
    let root = dir.path();
    git(root, &["checkout", "-q", "-b", "other"]);
    write(root, "a", "other\n");
    git(root, &["commit", "-q", "-a", "-m", "o"]);
    git(root, &["checkout", "-q", "main"]);
    write(root, "a", "main\n");
    git(root, &["commit", "-q", "-a", "-m", "m"]);
    let merge = Command::new("git")
        .current_dir(root)
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "merge", "-q", "other"])
        .output();
    assert!(!merge.unwrap().status.success());
    agrees(root);

    let (outer, inner) = (checkout(), checkout());
    git(outer.path(), &["submodule", "-q", "add", inner.path().to_str().unwrap(), "sub"]);
    git(outer.path(), &["commit", "-q", "-m", "s"]);
    agrees(outer.path());
    write(outer.path(), "sub/a", "changed\n");
    fs::remove_dir_all(outer.path().join("z")).unwrap();
    agrees(outer.path());

    let sparse = checkout();
    git(sparse.path(), &["sparse-checkout", "set", "--no-cone", "/*", "!/d/"]);
    agrees(sparse.path());
}
