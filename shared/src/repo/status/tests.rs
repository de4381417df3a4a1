//! Tests of the reads on real repositories, whole and broken.

use std::fs;
use std::path::Path;

use git2::Signature;
use tempfile::TempDir;

use super::*;

/// A repository with one commit of the given files.
fn repository(files: &[(&str, &str)]) -> (TempDir, Repository) {
    let dir = TempDir::new().unwrap();
    let repo = Repository::init(dir.path()).unwrap();
    commit(&repo, files);
    (dir, repo)
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn commit(repo: &Repository, files: &[(&str, &str)]) -> git2::Oid {
    let mut index = repo.index().unwrap();
    for (path, text) in files {
        write(repo.workdir().unwrap(), path, text);
        index.add_path(Path::new(path)).unwrap();
    }
    index.write().unwrap();
    let tree = repo.find_tree(index.write_tree().unwrap()).unwrap();
    let who = Signature::new("t", "t@example.org", &git2::Time::new(1_700_000_000, 0)).unwrap();
    let parent = repo.head().ok().and_then(|h| h.peel_to_commit().ok());
    let parents: Vec<_> = parent.iter().collect();
    repo.commit(Some("HEAD"), &who, &who, "m", &tree, &parents).unwrap()
}

fn object_file(repo: &Repository, id: git2::Oid) -> PathBuf {
    let hex = id.to_string();
    repo.path().join("objects").join(&hex[..2]).join(&hex[2..])
}

fn digest_of(root: &Path) -> crate::domain::ids::Digest {
    let tree = WorkTree::open(root).unwrap();
    let tracked = tree.tracked().unwrap();
    let submodules = tree.submodules(&tracked);
    tree.digest(&tracked, &tree.changes().unwrap(), &submodules).unwrap()
}

#[test]
fn folders_that_cannot_be_scanned_have_reasons() {
    let dir = TempDir::new().unwrap();
    assert_eq!(WorkTree::open(dir.path()).unwrap_err().reason(), "not_a_repository");
    assert_eq!(WorkTree::open(&dir.path().join("no")).unwrap_err().reason(), "not_a_repository");
    let bare = TempDir::new().unwrap();
    Repository::init_bare(bare.path()).unwrap();
    assert_eq!(WorkTree::open(bare.path()).unwrap_err().reason(), "bare_repository");
    Repository::init(dir.path()).unwrap();
    assert_eq!(WorkTree::open(dir.path()).unwrap_err().reason(), "empty_repository");
    let (dir, _repo) = repository(&[("sub/a.md", "x")]);
    assert_eq!(WorkTree::open(&dir.path().join("sub")).unwrap_err().reason(), "not_a_repository");
}

#[test]
fn changes_are_those_of_git_status() {
    let (dir, repo) = repository(&[("a", "1"), ("b", "1"), ("gone", "1"), (".gitignore", "*.tmp\n")]);
    write(dir.path(), "a", "2");
    write(dir.path(), "new/deep/file", "1");
    write(dir.path(), "x.tmp", "1");
    fs::remove_file(dir.path().join("gone")).unwrap();
    write(dir.path(), "staged", "1");
    let mut index = repo.index().unwrap();
    index.add_path(Path::new("staged")).unwrap();
    index.write().unwrap();
    let before = fs::read(repo.path().join("index")).unwrap();
    let changes = WorkTree::open(dir.path()).unwrap().changes().unwrap();
    let shown: Vec<_> = changes.iter().map(|c| (lossy(&c.path), c.kind)).collect();
    let want = [
        ("a", ChangeKind::Modified),
        ("gone", ChangeKind::Deleted),
        ("new/deep/file", ChangeKind::Untracked),
        ("staged", ChangeKind::Modified),
    ];
    assert_eq!(shown, want.map(|(p, k)| (p.to_owned(), k)));
    assert_eq!(fs::read(repo.path().join("index")).unwrap(), before, "reading wrote the index");
}

#[test]
fn the_digest_sees_contents_and_not_only_the_list() {
    let (dir, _repo) = repository(&[("a", "1"), ("b", "1")]);
    let clean = digest_of(dir.path());
    assert_eq!(clean, digest_of(dir.path()));
    write(dir.path(), "a", "2");
    let dirty = digest_of(dir.path());
    assert_ne!(clean, dirty);
    write(dir.path(), "a", "3");
    assert_ne!(dirty, digest_of(dir.path()), "another edit of the same file");
    write(dir.path(), "a", "1");
    assert_eq!(clean, digest_of(dir.path()));
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    assert_ne!(clean, digest_of(dir.path()));
}

#[test]
fn unusual_checkouts_are_told() {
    let (dir, repo) = repository(&[("a", "1")]);
    let first = repo.head().unwrap().target().unwrap();
    assert!(WorkTree::open(dir.path()).unwrap().checkout().branch.is_some());
    repo.set_head_detached(first).unwrap();
    fs::write(repo.path().join("MERGE_HEAD"), format!("{first}\n")).unwrap();
    fs::write(repo.path().join("shallow"), format!("{first}\n")).unwrap();
    let tree = WorkTree::open(dir.path()).unwrap();
    let checkout = tree.checkout();
    assert_eq!(checkout.branch, None);
    assert_eq!(checkout.operation, Some("merge"));
    assert!(checkout.shallow);
    assert_eq!(checkout.head, Some(oid(first)));
}

#[test]
fn changed_since_names_both_sides() {
    let (dir, repo) = repository(&[("a", "1"), ("b", "1")]);
    let first = repo.head().unwrap().target().unwrap();
    commit(&repo, &[("c", "1")]);
    let tree = WorkTree::open(dir.path()).unwrap();
    let paths = tree.changed_since(oid(first)).unwrap();
    assert_eq!(paths.into_iter().collect::<Vec<_>>(), [b"c".to_vec()]);
    let none = tree.changed_since(Oid::from_bytes([7; 20])).unwrap_err();
    assert_eq!(none.reason(), "not_found");
}

#[test]
fn what_does_not_resolve_is_named() {
    let (dir, repo) = repository(&[("a", "1"), ("sub/b", "2")]);
    let tree = || WorkTree::open(dir.path()).unwrap();
    assert_eq!(tree().problems().unwrap(), Vec::<String>::new());
    let missing = "1".repeat(40);
    fs::write(repo.path().join("refs/heads/gone"), format!("{missing}\n")).unwrap();
    let found = tree().problems().unwrap();
    assert_eq!(found, [format!("refs/heads/gone points to {missing}, which is missing")]);
    for malformed in ["garbage\n", ""] {
        fs::write(repo.path().join("refs/heads/gone"), malformed).unwrap();
        let found = tree().problems().unwrap();
        assert_eq!(found, ["refs/heads/gone is not a reference"]);
    }
    fs::remove_file(repo.path().join("refs/heads/gone")).unwrap();

    let head = repo.head().unwrap().peel_to_tree().unwrap();
    let sub = head.get_name("sub").unwrap().id();
    fs::remove_file(object_file(&repo, sub)).unwrap();
    let found = tree().problems().unwrap();
    assert!(found.iter().any(|f| f.contains(&format!("tree {sub} of HEAD"))), "{found:?}");

    let blob = head.get_name("a").unwrap().id();
    fs::remove_file(object_file(&repo, blob)).unwrap();
    let found = tree().problems().unwrap();
    assert!(found.iter().any(|f| f.contains("for \"a\", which is missing")), "{found:?}");

    fs::write(repo.path().join("index"), b"garbage").unwrap();
    let found = tree().problems().unwrap();
    assert!(found.iter().any(|f| f.starts_with("the index cannot be read")), "{found:?}");
}

#[test]
fn fsck_reads_every_object() {
    let (dir, repo) = repository(&[("a", "1")]);
    commit(&repo, &[("a", "2")]);
    let tree = || WorkTree::open(dir.path()).unwrap();
    assert_eq!(tree().fsck().unwrap(), Vec::<String>::new());
    // An old version of a file is swapped for another: everything resolves, yet history is not whole.
    let old = git2::Oid::hash_object(git2::ObjectType::Blob, b"1").unwrap();
    let new = git2::Oid::hash_object(git2::ObjectType::Blob, b"2").unwrap();
    let (old_file, new_file) = (object_file(&repo, old), object_file(&repo, new));
    fs::remove_file(&old_file).unwrap();
    fs::copy(&new_file, &old_file).unwrap();
    assert_eq!(tree().problems().unwrap(), Vec::<String>::new());
    let found = tree().fsck().unwrap();
    assert!(found.iter().any(|f| f.contains(&old.to_string())), "{found:?}");
    fs::remove_file(&old_file).unwrap();
    let found = tree().fsck().unwrap();
    assert!(found.iter().any(|f| f.contains(&old.to_string())), "{found:?}");
}

#[test]
fn submodules_count_with_their_heads() {
    let (dir, repo) = repository(&[("a", "1")]);
    let nested = Repository::init(dir.path().join("sub")).unwrap();
    let id = commit(&nested, &[("x", "1")]);
    let mut index = repo.index().unwrap();
    let mut entry = index.get_path(Path::new("a"), 0).unwrap();
    (entry.path, entry.mode, entry.id) = (b"sub".to_vec(), 0o160_000, id);
    index.add(&entry).unwrap();
    index.write().unwrap();
    let tree = WorkTree::open(dir.path()).unwrap();
    let subs = tree.submodules(&tree.tracked().unwrap());
    assert_eq!(subs, [SubmoduleHead { path: b"sub".to_vec(), recorded: oid(id), head: Some(oid(id)) }]);
    let before = digest_of(dir.path());
    commit(&nested, &[("x", "2")]);
    assert_ne!(before, digest_of(dir.path()));
}
