//! Merges, rebases and reverts on small trees.

use git2::{Repository, Signature, Time};

use super::*;

/// A bare repository in a temporary folder, and a shorthand for trees: `path -> text`, `x:` marks an executable.
struct Fixture {
    _dir: tempfile::TempDir,
    repo: Repository,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = super::super::open::init_bare(dir.path()).unwrap();
        Self { _dir: dir, repo }
    }

    fn tree(&self, files: &[(&str, &str)]) -> Oid {
        let odb = self.repo.odb().unwrap();
        let mut entries: Vec<Entry> = Vec::new();
        let mut folders: std::collections::BTreeMap<&str, Vec<(&str, &str)>> = std::collections::BTreeMap::new();
        for (path, text) in files {
            if let Some((folder, rest)) = path.split_once('/') {
                folders.entry(folder).or_default().push((rest, text));
                continue;
            }
            let (mode, text) = text.strip_prefix("x:").map_or((0o100_644, *text), |text| (0o100_755, text));
            let oid = from_git(odb.write(ObjectType::Blob, text.as_bytes()).unwrap());
            entries.push(Entry { mode, name: path.as_bytes().to_vec(), oid });
        }
        for (folder, files) in folders {
            entries.push(Entry { mode: 0o040_000, name: folder.as_bytes().to_vec(), oid: self.tree(&files) });
        }
        tree::write(&odb, entries).unwrap()
    }

    fn commit(&self, tree: Oid, parents: &[Oid]) -> Oid {
        let who = Signature::new("a", "a@example.com", &Time::new(0, 0)).unwrap();
        let parents: Vec<_> = parents.iter().map(|oid| self.repo.find_commit(to_git(*oid)).unwrap()).collect();
        let parents: Vec<_> = parents.iter().collect();
        let tree = self.repo.find_tree(to_git(tree)).unwrap();
        from_git(self.repo.commit(None, &who, &who, "m\n", &tree, &parents).unwrap())
    }
}

fn conflict(paths: &[&str]) -> Merged {
    Merged::Conflict(paths.iter().map(|path| path.as_bytes().to_vec()).collect())
}

#[test]
fn clean_and_conflicting_merges() {
    let f = Fixture::new();
    let base = [("a", "1\n2\n3\n4\n5\n"), ("d/x", "x\n"), ("d/y", "y\n")];
    type Files = &'static [(&'static str, &'static str)];
    type Want = Result<Files, &'static [&'static str]>;
    let cases: &[(Files, Files, Want)] = &[
        // Two ends of one file, and two files of one folder.
        (
            &[("a", "one\n2\n3\n4\n5\n"), ("d/x", "X\n"), ("d/y", "y\n")],
            &[("a", "1\n2\n3\n4\nfive\n"), ("d/x", "x\n"), ("d/y", "Y\n")],
            Ok(&[("a", "one\n2\n3\n4\nfive\n"), ("d/x", "X\n"), ("d/y", "Y\n")]),
        ),
        // The same lines, differently; and changed against deleted.
        (&[("a", "one\n"), ("d/x", "X\n")], &[("a", "uno\n"), ("d/y", "y\n")], Err(&["a", "d/x"])),
        // Text on one side, the executable bit on the other.
        (
            &[("a", "x:1\n2\n3\n4\n5\n"), ("d/x", "x\n"), ("d/y", "y\n")],
            &[("a", "1\n2\n3\n4\n5\n6\n"), ("d/x", "x\n"), ("d/y", "y\n")],
            Ok(&[("a", "x:1\n2\n3\n4\n5\n6\n"), ("d/x", "x\n"), ("d/y", "y\n")]),
        ),
        // The same new file on both sides is one file; different ones are a conflict.
        (&[("n", "n\n")], &[("n", "n\n"), ("d/x", "x\n"), ("d/y", "y\n")], Ok(&[("n", "n\n")])),
        (&[("n", "n\n")], &[("n", "m\n")], Err(&["n"])),
        // A folder that became a file against a change inside it.
        (
            &[("a", "1\n2\n3\n4\n5\n"), ("d", "file\n")],
            &[("a", "1\n2\n3\n4\n5\n"), ("d/x", "X\n"), ("d/y", "y\n")],
            Err(&["d"]),
        ),
        // Binary contents are never merged.
        (&[("a", "1\0\n2\n3\n4\n5\n")], &[("a", "1\n2\n3\n4\n6\n")], Err(&["a"])),
        // Everything deleted.
        (&[("a", "1\n2\n3\n4\n5\n")], &[("d/x", "x\n"), ("d/y", "y\n")], Ok(&[])),
    ];
    for (ours, theirs, want) in cases {
        let got = merge(&f.repo, f.tree(&base), f.tree(ours), f.tree(theirs)).unwrap();
        let want = match want {
            Ok(files) => Merged::Clean(f.tree(files)),
            Err(paths) => conflict(paths),
        };
        assert_eq!(got, want, "{ours:?} {theirs:?}");
    }
}

#[test]
fn an_approved_change_moves_onto_a_new_base_and_stays_the_same_change() {
    let f = Fixture::new();
    let base = f.commit(f.tree(&[("a", "1\n"), ("b", "1\n")]), &[]);
    let result = f.tree(&[("a", "2\n"), ("b", "1\n")]);
    let onto = f.commit(f.tree(&[("a", "1\n"), ("b", "9\n")]), &[base]);
    let Merged::Clean(moved) = rebase_tree(&f.repo, base, result, onto).unwrap() else { panic!("conflict") };
    assert_eq!(moved, f.tree(&[("a", "2\n"), ("b", "9\n")]));
    assert!(same_entries(&f.repo, (base, result), (onto, moved)).unwrap());

    let touched = f.commit(f.tree(&[("a", "1\nmore\n"), ("b", "1\n")]), &[base]);
    assert_eq!(rebase_tree(&f.repo, base, result, touched).unwrap(), conflict(&["a"]));
    assert!(!same_entries(&f.repo, (base, result), (touched, f.tree(&[("a", "2\nmore\n"), ("b", "1\n")]))).unwrap());
}

#[test]
fn a_revert_keeps_later_work() {
    let f = Fixture::new();
    let save = f.tree(&[("a", "1\n"), ("b", "1\n")]);
    let applied = f.tree(&[("a", "2\n"), ("b", "1\n"), ("new", "n\n")]);
    assert_eq!(revert_tree(&f.repo, save, applied, applied).unwrap(), Merged::Clean(save));
    let later = f.tree(&[("a", "2\n"), ("b", "7\n"), ("new", "n\n")]);
    assert_eq!(
        revert_tree(&f.repo, save, applied, later).unwrap(),
        Merged::Clean(f.tree(&[("a", "1\n"), ("b", "7\n")]))
    );
    let edited = f.tree(&[("a", "3\n"), ("b", "1\n"), ("new", "n\n")]);
    assert_eq!(revert_tree(&f.repo, save, applied, edited).unwrap(), conflict(&["a"]));
}

#[test]
fn landing_merges_over_the_common_ancestor() {
    let f = Fixture::new();
    let root = f.commit(f.tree(&[("a", "1\n"), ("b", "1\n")]), &[]);
    let ours = f.commit(f.tree(&[("a", "2\n"), ("b", "1\n")]), &[root]);
    let theirs = f.commit(f.tree(&[("a", "1\n"), ("b", "2\n")]), &[root]);
    assert_eq!(
        merge_commits_tree(&f.repo, ours, theirs).unwrap(),
        Merged::Clean(f.tree(&[("a", "2\n"), ("b", "2\n")]))
    );
    let foreign = f.commit(f.tree(&[("a", "9\n")]), &[]);
    assert_eq!(merge_commits_tree(&f.repo, ours, foreign).unwrap(), conflict(&["a"]));
}
