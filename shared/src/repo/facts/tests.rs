//! Facts of trees that no tool would make, and of limits.

use git2::{ObjectType, Repository};

use super::*;
use crate::domain::change::LinkEnd;
use crate::repo::open::from_git;
use crate::repo::raw::{RawEntry, RawTree, write_tree};

struct Bench {
    repo: Repository,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { repo: Repository::init_bare(dir.path()).unwrap(), _dir: dir }
    }

    fn blob(&self, data: &[u8]) -> Oid {
        from_git(self.repo.odb().unwrap().write(ObjectType::Blob, data).unwrap())
    }

    fn tree(&self, entries: &[(&str, FileMode, Oid)]) -> Oid {
        let tree: RawTree = entries
            .iter()
            .map(|(name, mode, id)| (name.as_bytes().to_vec(), RawEntry { mode: *mode, padded: false, id: *id }))
            .collect();
        write_tree(&self.repo.odb().unwrap(), tree).unwrap()
    }

    fn facts(&self, base: Oid, result: Oid, limits: &Limits) -> ChangeFacts {
        tree_facts(&self.repo, base, result, limits).unwrap()
    }
}

const FILE: FileMode = FileMode::FILE;
const TREE: FileMode = FileMode::TREE;

#[test]
fn a_slash_inside_a_name_and_a_name_twice_are_refused() {
    let bench = Bench::new();
    let (empty, a) = (bench.tree(&[]), bench.blob(b"a\n"));
    let facts = bench.facts(empty, bench.tree(&[("x/y", FILE, a), ("z", FILE, a), ("z", FILE, a)]), &Limits::default());
    assert!(matches!(facts.entries[0].path, EntryPath::Refused { .. }), "{:?}", facts.entries[0].path);
    assert_eq!(facts.collisions, [vec!["z".to_owned(), "z".to_owned()]]);
    let json = serde_json::to_string(&facts).unwrap();
    assert!(matches!(serde_json::from_str::<ChangeFacts>(&json).unwrap().entries[0].path, EntryPath::Refused { .. }));
}

#[test]
fn a_tree_bomb_is_refused_within_the_budget() {
    let bench = Bench::new();
    let empty = bench.tree(&[]);
    let mut tree = bench.tree(&[("f", FILE, bench.blob(b"x"))]);
    let names: Vec<String> = (0..10).map(|i| format!("d{i}")).collect();
    for _ in 0..10 {
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), TREE, tree)).collect();
        tree = bench.tree(&entries);
    }
    let facts = bench.facts(empty, tree, &Limits { tree_entries: 10_000, ..Limits::default() });
    assert!(facts.excess.iter().any(|excess| excess.of == ExcessKind::TreeEntries));
    assert!(facts.excess.iter().any(|excess| excess.of == ExcessKind::Files && excess.value > 2_000));
    assert!(facts.entries.len() <= 2_001);
}

#[test]
fn a_deep_tree_is_one_refused_entry() {
    let bench = Bench::new();
    let empty = bench.tree(&[]);
    let mut tree = bench.tree(&[("f", FILE, bench.blob(b"x"))]);
    for _ in 0..300 {
        tree = bench.tree(&[("d", TREE, tree)]);
    }
    let facts = bench.facts(empty, tree, &Limits::default());
    assert_eq!(facts.entries.len(), 1);
    assert!(matches!(facts.entries[0].path, EntryPath::Refused { .. }));
}

#[test]
fn content_beyond_the_limit_is_not_read() {
    let bench = Bench::new();
    let empty = bench.tree(&[]);
    let tree =
        bench.tree(&[("big", FILE, bench.blob(&vec![b'x'; 2_000])), ("l", FileMode::SYMLINK, bench.blob(b"big"))]);
    let facts = bench.facts(empty, tree, &Limits { bytes: 1_000, ..Limits::default() });
    assert_eq!(facts.excess, [Excess { of: ExcessKind::Bytes, value: 2_003, limit: 1_000 }]);
    assert_eq!(facts.size, 0);
    assert!(facts.entries[1].link.is_none());
}

#[test]
fn links_are_followed_in_the_result_tree_only() {
    let bench = Bench::new();
    let a = bench.blob(b"a\n");
    let link = |text: &str| ("l", FileMode::SYMLINK, bench.blob(text.as_bytes()));
    let inner = bench.tree(&[("f", FILE, a)]);
    let base = bench.tree(&[("d", TREE, inner), ("k", FileMode::SYMLINK, bench.blob(b"d")), ("z", FILE, a)]);
    let end = |text: &str| {
        let result =
            bench.tree(&[("d", TREE, inner), ("k", FileMode::SYMLINK, bench.blob(b"d")), link(text), ("z", FILE, a)]);
        bench.facts(base, result, &Limits::default()).entries[0].link.clone().unwrap().end
    };
    let hops = |text: &str| match end(text) {
        LinkEnd::Inside { hops, contents, .. } => {
            (hops.iter().map(|hop| hop.shown().to_owned()).collect::<Vec<_>>(), contents.len())
        }
        other @ (LinkEnd::Outside { .. } | LinkEnd::Root) => panic!("{other:?}"),
    };
    assert_eq!(hops("z"), (vec!["z".to_owned()], 0));
    assert_eq!(hops("k"), (vec!["k".to_owned(), "d".to_owned()], 1));
    assert_eq!(hops("d/../z"), (vec!["z".to_owned()], 0));
    assert_eq!(hops("nowhere/x"), (vec!["nowhere/x".to_owned()], 0));
    assert_eq!(end("."), LinkEnd::Root);
    for outside in ["/etc", "../x", "k/f", "l", ""] {
        assert!(matches!(end(outside), LinkEnd::Outside { .. }), "{outside}");
    }
}

#[test]
fn a_move_counts_nothing_and_a_copy_everything() {
    let bench = Bench::new();
    let text = bench.blob(&b"line\n".repeat(30));
    let base = bench.tree(&[("a", FILE, text), ("b", FILE, text)]);
    let result = bench.tree(&[("c", FileMode::EXECUTABLE, text), ("d", FILE, text), ("e", FILE, text)]);
    let facts = bench.facts(base, result, &Limits::default());
    assert_eq!((facts.added, facts.removed, facts.files), (30, 0, 5));
    let by_path = |path: &str| facts.entries.iter().find(|entry| entry.path.shown() == path).unwrap();
    assert_eq!(by_path("c").moved_from.as_ref().unwrap().path, "a");
    assert!(by_path("c").changes_mode() && !by_path("d").changes_mode());
    assert_eq!(by_path("e").added, 30);
    assert_eq!(facts.origins[&text].len(), 2);
}

#[test]
fn a_padded_mode_is_odd() {
    let bench = Bench::new();
    let empty = bench.tree(&[]);
    let id = bench.blob(b"x\n");
    let tree = vec![(b"f".to_vec(), RawEntry { mode: FILE, padded: true, id })];
    let tree = write_tree(&bench.repo.odb().unwrap(), tree).unwrap();
    assert!(bench.facts(empty, tree, &Limits::default()).entries[0].odd_mode);
}
