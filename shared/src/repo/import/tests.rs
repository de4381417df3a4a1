//! Patches against a small base. The texts of `tests/cases` cover the grammar; here is what they leave out.

use std::collections::BTreeMap;

use git2::{DiffFormat, Repository, Signature};
use proptest::prelude::*;

use super::*;
use crate::repo::open::from_git;

struct Bench {
    repo: Repository,
    base: Oid,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(dir.path()).unwrap();
        let base = {
            let blob = |data: &[u8]| repo.blob(data).unwrap();
            let mut inner = repo.treebuilder(None).unwrap();
            inner.insert("x", blob(b"1\n2\n3\n4\n5\n6\n"), 0o100_644).unwrap();
            inner.insert("link", blob(b"x"), 0o120_000).unwrap();
            let mut root = repo.treebuilder(None).unwrap();
            root.insert("d", inner.write().unwrap(), 0o040_000).unwrap();
            root.insert("end", blob(b"no line feed"), 0o100_644).unwrap();
            let tree = repo.find_tree(root.write().unwrap()).unwrap();
            let author = Signature::new("t", "t@example.invalid", &git2::Time::new(0, 0)).unwrap();
            from_git(repo.commit(None, &author, &author, "base", &tree, &[]).unwrap())
        };
        Self { repo, base, _dir: dir }
    }

    fn import(&self, text: &str) -> Result<Oid, ImportError> {
        import_patch(&self.repo, self.base, text.as_bytes())
    }

    fn read(&self, tree: Oid, path: &str) -> Option<String> {
        let odb = self.repo.odb().unwrap();
        let parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        let entry = raw::lookup(&odb, tree, &parts).unwrap()?;
        Some(String::from_utf8(raw::read_blob(&odb, entry.id).unwrap().data().to_vec()).unwrap())
    }
}

const HEAD: &str = "diff --git a/d/x b/d/x\nindex 1111111..2222222 100644\n--- a/d/x\n+++ b/d/x\n";

fn refusal(result: Result<Oid, ImportError>) -> ReasonCode {
    match result {
        Err(ImportError::Refused { reasons }) => reasons[0].code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_edit_leaves_everything_else_alone() {
    let bench = Bench::new();
    let tree =
        bench.import(&format!("{HEAD}@@ -1,2 +1,3 @@\n 1\n-2\n+two\n+2b\n@@ -6 +7 @@ five\n-6\n+six\n")).unwrap();
    assert_eq!(bench.read(tree, "d/x").unwrap(), "1\ntwo\n2b\n3\n4\n5\nsix\n");
    assert_eq!(bench.read(tree, "end").unwrap(), "no line feed");
    assert_eq!(bench.import("").unwrap(), raw::tree_of_commit(&bench.repo, bench.base).unwrap());
}

#[test]
fn hunks_apply_at_their_place_or_not_at_all() {
    let bench = Bench::new();
    for (hunk, malformed) in [
        ("@@ -2,2 +2,2 @@\n 1\n-2\n+two\n", false),
        ("@@ -9 +9 @@\n-9\n+nine\n", false),
        ("@@ -1,2 +5,2 @@\n 1\n-2\n+two\n", true),
        ("@@ -3 +3 @@\n-3\n+c\n@@ -1 +1 @@\n-1\n+a\n", true),
        ("@@ -1 +1 @@\n 1\n", true),
        ("@@ -1,2 +1,2 @@\n 1\n-2\n+two\n\n", true),
        ("@@ -6 +6 @@\n-6\n\\ No newline at end of file\n+six\n", false),
        ("@@ -1 +1 @@\n-1\n+one\n\\ No newline at end of file\n", false),
        ("@@ -1 +1 @@\r\n-1\n+one\n", true),
        ("@@ -1 +1 @@\n-1\n+one", true),
    ] {
        match bench.import(&format!("{HEAD}{hunk}")) {
            Err(ImportError::Malformed { .. }) => assert!(malformed, "{hunk}"),
            Err(ImportError::Conflict { .. }) => assert!(!malformed, "{hunk}"),
            other => panic!("{hunk} {other:?}"),
        }
    }
}

#[test]
fn modes_must_be_those_of_the_base() {
    let bench = Bench::new();
    let link = "diff --git a/d/link b/d/link\nindex 1111111..2222222MODE\n--- a/d/link\n+++ b/d/link\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n\\ No newline at end of file\n";
    assert!(bench.import(&link.replace("MODE", " 120000")).is_ok());
    for mode in ["", " 100644"] {
        assert!(matches!(bench.import(&link.replace("MODE", mode)), Err(ImportError::Conflict { .. })));
    }
    let create = |mode: &str| format!("diff --git a/n b/n\nnew file mode {mode}\nindex 0000000..e69de29\n");
    assert!(bench.import(&create("100755")).is_ok());
    assert_eq!(refusal(bench.import(&create("100664"))), ReasonCode::ModeInvalid);
    assert!(matches!(bench.import(&create("10064")), Err(ImportError::Malformed { .. })));
}

#[test]
fn files_and_directories_do_not_take_each_others_place() {
    let bench = Bench::new();
    let create = |path: &str| {
        format!(
            "diff --git a/{path} b/{path}\nnew file mode 100644\nindex 0000000..d00491f\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+1\n"
        )
    };
    assert!(matches!(bench.import(&create("end/x")), Err(ImportError::Conflict { .. })));
    assert!(matches!(bench.import(&create("d")), Err(ImportError::Conflict { .. })));
    assert_eq!(refusal(bench.import(&create("d/link/x"))), ReasonCode::SymlinkTraversal);
    let delete = "diff --git a/end b/end\ndeleted file mode 100644\nindex 1111111..0000000\n--- a/end\n+++ /dev/null\n@@ -1 +0,0 @@\n-no line feed\n\\ No newline at end of file\n";
    let tree = bench.import(&format!("{delete}{}", create("end/x"))).unwrap();
    assert_eq!(bench.read(tree, "end/x").unwrap(), "1\n");
    assert!(bench.read(bench.import(delete).unwrap(), "end").is_none());
}

#[test]
fn an_import_in_memory_leaves_no_object_behind() {
    let bench = Bench::new();
    let objects = |dir: &std::path::Path| {
        std::fs::read_dir(dir.join("objects")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let before = objects(bench.repo.path());
    in_memory(&bench.repo).unwrap();
    let tree = bench.import(&format!("{HEAD}@@ -1 +1 @@\n-1\n+one\n")).unwrap();
    assert!(bench.read(tree, "d/x").unwrap().starts_with("one"));
    assert_eq!(objects(bench.repo.path()), before);
}

/// Files by path: a mode and lines, the last of which may lack its line feed.
type Files = BTreeMap<String, (bool, Vec<u8>)>;

fn files() -> impl Strategy<Value = Files> {
    let text = prop::collection::vec("[ab@+-]{0,3}", 0..12);
    let file = (any::<bool>(), text, any::<bool>()).prop_map(|(executable, lines, ends)| {
        let mut text = lines.join("\n");
        if ends && !text.is_empty() {
            text.push('\n');
        }
        (executable, text.into_bytes())
    });
    prop::collection::btree_map("[ab]/[xyé ]{1,2}c|[mn]o", file, 0..5)
}

fn write(repo: &Repository, files: &Files) -> Oid {
    let odb = repo.odb().unwrap();
    let entry = |executable, text: &[u8]| raw::RawEntry {
        mode: if executable { FileMode::EXECUTABLE } else { FileMode::FILE },
        padded: false,
        id: from_git(repo.blob(text).unwrap()),
    };
    let mut edits = apply::Edits::new();
    for (path, (executable, text)) in files {
        edits.insert(RepoPath::parse(path).unwrap(), Some(entry(*executable, text)));
    }
    let empty = raw::write_tree(&odb, Vec::new()).unwrap();
    build::build(&odb, empty, &edits).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What git writes about two trees leads from the one to the other, and its counts are our counts.
    #[test]
    fn a_diff_of_git_is_imported_to_the_very_tree(before in files(), after in files()) {
        let bench = Bench::new();
        let (old, new) = (write(&bench.repo, &before), write(&bench.repo, &after));
        let tree = |id| bench.repo.find_tree(crate::repo::open::to_git(id)).unwrap();
        let diff = bench.repo.diff_tree_to_tree(Some(&tree(old)), Some(&tree(new)), None).unwrap();
        let mut text = Vec::new();
        diff.print(DiffFormat::Patch, |_, _, line| {
            if matches!(line.origin(), ' ' | '+' | '-') {
                text.push(u8::try_from(line.origin()).unwrap());
            }
            text.extend_from_slice(line.content());
            true
        })
        .unwrap();
        let author = Signature::new("t", "t@example.invalid", &git2::Time::new(0, 0)).unwrap();
        let base = from_git(bench.repo.commit(None, &author, &author, "c", &tree(old), &[]).unwrap());
        let imported = import_patch(&bench.repo, base, &text);
        prop_assert_eq!(imported.ok(), Some(new), "{}", String::from_utf8_lossy(&text));
        let facts = crate::repo::facts::tree_facts(&bench.repo, old, new, &crate::repo::facts::Limits::default()).unwrap();
        let moved = facts.entries.iter().any(|entry| entry.moved_from.is_some());
        let stats = diff.stats().unwrap();
        if !moved {
            prop_assert_eq!((facts.added, facts.removed), (stats.insertions() as u64, stats.deletions() as u64));
        }
    }

    /// Whatever the bytes, the importer answers and never panics.
    #[test]
    fn any_bytes_are_answered(text in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400) {
        let bench = Bench::new();
        let _ = import_patch(&bench.repo, bench.base, &text);
        let whole = format!("{HEAD}@@ -1,2 +1,3 @@\n 1\n-2\n+two\n+2b\n@@ -6 +7 @@ five\n-6\n+six\n");
        let mut bytes = whole.into_bytes();
        let at = cut % bytes.len();
        bytes.splice(at..at, text.iter().copied().take(3));
        let _ = import_patch(&bench.repo, bench.base, &bytes);
    }
}
