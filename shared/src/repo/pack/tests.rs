//! Packs from a worker's repository, through quarantine, into a hub.

use std::collections::HashSet;

use git2::{ObjectType, Signature, Time};

use super::super::open::{from_git, init_bare};
use super::super::tree::Entry;
use super::*;

struct Pair {
    dir: TempDir,
    worker: Repository,
    hub: Repository,
    base: Oid,
}

fn blob(repo: &Repository, bytes: &[u8]) -> Oid {
    from_git(repo.odb().unwrap().write(ObjectType::Blob, bytes).unwrap())
}

fn tree(repo: &Repository, entries: &[(u32, &str, Oid)]) -> Oid {
    let entries =
        entries.iter().map(|(mode, name, oid)| Entry { mode: *mode, name: name.as_bytes().to_vec(), oid: *oid });
    tree::write(&repo.odb().unwrap(), entries.collect()).unwrap()
}

/// A hub with one commit of two files, and a worker's repository with the same commit.
fn pair() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let hub = init_bare(&dir.path().join("hub")).unwrap();
    let worker = init_bare(&dir.path().join("worker")).unwrap();
    let root = tree(&hub, &[(0o100_644, "a", blob(&hub, b"a\n")), (0o100_644, "b", blob(&hub, b"b\n"))]);
    let who = Signature::new("a", "a@example.com", &Time::new(0, 0)).unwrap();
    let base = from_git(hub.commit(None, &who, &who, "m\n", &hub.find_tree(to_git(root)).unwrap(), &[]).unwrap());
    store_pack(&worker, &pack_history(&hub, base, &[], |_| Ok(())).unwrap()).unwrap();
    Pair { dir, worker, hub, base }
}

impl Pair {
    fn quarantine(&self) -> Quarantine {
        Quarantine::new(&self.dir.path().join("hub/objects"), &self.dir.path().join("scratch")).unwrap()
    }
}

#[test]
fn a_change_travels_through_quarantine() {
    let p = pair();
    let w = &p.worker;
    // An odd mode and a submodule have to arrive, so that the receiver can refuse them by name.
    let inner = tree(w, &[(0o100_644, "x", blob(w, b"gitdir: /x\n"))]);
    let gitlink = (0o160_000, "sub", p.base);
    let result = tree(
        w,
        &[(0o100_644, "a", blob(w, b"a\n")), (0o100_664, "c", blob(w, b"c\n")), (0o040_000, "d", inner), gitlink],
    );
    let pack = pack_new_objects(w, p.base, result).unwrap();

    let quarantine = p.quarantine();
    quarantine.ingest(&pack, &PackBudget::default()).unwrap();
    quarantine.verify(p.base, result).unwrap();
    let changed =
        tree::diff(quarantine.repo(), Some(tree::tree_of(&p.hub, p.base).unwrap()), Some(result), 10).unwrap();
    let paths: Vec<_> = changed.iter().map(|change| String::from_utf8_lossy(&change.path).into_owned()).collect();
    assert_eq!(paths, ["b", "c", "d/x", "sub"]);
    assert!(!p.hub.odb().unwrap().exists(to_git(result)), "the hub must not see quarantined objects");

    quarantine.promote(&p.hub, p.base, result).unwrap();
    let scratch = quarantine.dir.path().to_path_buf();
    drop(quarantine);
    assert!(!scratch.exists());
    let hub = open::open_bare(&p.dir.path().join("hub")).unwrap();
    assert_eq!(tree::closure(&hub.odb().unwrap(), result, &HashSet::new()).unwrap().len(), 5);
}

#[test]
fn an_unchanged_tree_needs_no_pack() {
    let p = pair();
    let same = tree::tree_of(&p.worker, p.base).unwrap();
    assert!(pack_new_objects(&p.worker, p.base, same).unwrap().is_empty());
    p.quarantine().promote(&p.hub, p.base, same).unwrap();
}

/// A pack of just these objects, as a hostile sender makes it.
fn pack_of(repo: &Repository, oids: &[Oid]) -> Vec<u8> {
    let mut builder = repo.packbuilder().unwrap();
    for oid in oids {
        builder.insert_object(to_git(*oid), None).unwrap();
    }
    finish(builder, |_| Ok(())).unwrap()
}

#[test]
fn a_tree_that_names_git_is_neither_sent_nor_taken() {
    let p = pair();
    let w = &p.worker;
    let text = blob(w, b"gitdir: /x\n");
    for name in [".git", ".GiT", ".g\u{200c}it", "git~1", ".git ", "a\\.git"] {
        let inner = tree(w, &[(0o100_644, name, text)]);
        let result = tree(w, &[(0o040_000, "d", inner)]);
        let refused = |error: PackError| {
            assert!(matches!(&error, PackError::Tree(TreeError::GitInternal { path }) if *path == format!("d/{name}")));
        };
        refused(pack_new_objects(w, p.base, result).unwrap_err());
        let quarantine = p.quarantine();
        quarantine.ingest(&pack_of(w, &[result, inner, text]), &PackBudget::default()).unwrap();
        refused(quarantine.verify(p.base, result).unwrap_err());
        refused(quarantine.promote(&p.hub, p.base, result).unwrap_err());
        assert!(!p.hub.odb().unwrap().exists(to_git(result)));
    }
}

#[test]
fn smuggled_objects_stay_behind_and_missing_ones_are_named() {
    let p = pair();
    let w = &p.worker;
    let (wanted, extra) = (blob(w, b"wanted\n"), blob(w, b"extra\n"));
    let result = tree(w, &[(0o100_644, "a", wanted)]);
    let quarantine = p.quarantine();
    quarantine.ingest(&pack_of(w, &[result, wanted, extra]), &PackBudget::default()).unwrap();
    quarantine.promote(&p.hub, p.base, result).unwrap();
    let odb = p.hub.odb().unwrap();
    assert!(odb.exists(to_git(wanted)) && !odb.exists(to_git(extra)));

    let other = tree(w, &[(0o100_644, "z", extra)]);
    let quarantine = p.quarantine();
    quarantine.ingest(&pack_of(w, &[other]), &PackBudget::default()).unwrap();
    let error = quarantine.promote(&p.hub, p.base, other).unwrap_err();
    assert!(matches!(error, PackError::Tree(TreeError::Missing { oid }) if oid == extra), "{error}");
    assert!(!odb.exists(to_git(other)));
}

#[test]
fn bombs_and_garbage_are_refused_before_indexing() {
    let p = pair();
    let w = &p.worker;
    let zeros = tree(w, &[(0o100_644, "zeros", blob(w, &vec![0; 8 << 20]))]);
    let pack = pack_new_objects(w, p.base, zeros).unwrap();
    assert!(pack.len() < 100_000);
    let quarantine = p.quarantine();
    let refuse = |bytes: &[u8], budget: PackBudget| {
        let error = quarantine.ingest(bytes, &budget).unwrap_err();
        let stored = std::fs::read_dir(quarantine.dir.path().join("objects/pack")).unwrap().count();
        assert_eq!(stored, 0, "something of a refused pack was kept");
        error
    };
    let small = PackBudget { inflated: 1 << 20, objects: 10 };
    assert!(matches!(refuse(&pack, small), PackError::TooLarge { unit: "bytes", .. }));
    let few = PackBudget { inflated: 1 << 30, objects: 1 };
    assert!(matches!(refuse(&pack, few), PackError::TooLarge { unit: "objects", .. }));

    let whole = PackBudget::default();
    assert!(matches!(refuse(b"PACK", whole), PackError::Malformed { .. }));
    assert!(matches!(refuse(&pack[..pack.len() - 30], whole), PackError::Malformed { .. }));
    assert!(matches!(
        refuse(&[&pack[..pack.len() - 20], b"x", &pack[pack.len() - 20..]].concat(), whole),
        PackError::Malformed { .. }
    ));
    let mut lies = pack.clone();
    lies[12] ^= 1; // the declared size of the first object
    assert!(matches!(refuse(&lies, whole), PackError::Malformed { .. }));
}

#[test]
fn a_delta_counts_what_it_expands_to() {
    // PACK of one REF_DELTA whose delta says: base of 1 byte, result of 1 GiB.
    let delta = [&[1_u8][..], &[0x80, 0x80, 0x80, 0x80, 0x04]].concat();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&delta).unwrap();
    let head = u8::try_from(0x70 | delta.len()).unwrap();
    let pack =
        [b"PACK\0\0\0\x02\0\0\0\x01".to_vec(), vec![head], vec![7; 20], zlib.finish().unwrap(), vec![0; 20]].concat();
    let error = scan::measure(&pack, &PackBudget::default()).unwrap_err();
    assert!(matches!(error, PackError::TooLarge { unit: "bytes", .. }), "{error}");
}

#[test]
fn a_pack_that_gets_too_large_is_given_up_before_it_is() {
    let p = pair();
    // Bytes that do not compress.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let files = names.map(|name| (0o100_644, name, blob(&p.hub, &(0..100_000).map(|_| noise()).collect::<Vec<u8>>())));
    let root = p.hub.find_tree(to_git(tree(&p.hub, &files))).unwrap();
    let who = Signature::new("a", "a@example.com", &Time::new(0, 0)).unwrap();
    let commit = from_git(p.hub.commit(None, &who, &who, "m\n", &root, &[]).unwrap());
    let mut asked = Vec::new();
    let bounded = |bytes: u64, limit: u64| match bytes > limit {
        true => Err(PackError::TooLarge { limit, unit: "bytes" }),
        false => Ok(()),
    };
    let refused = pack_history(&p.hub, commit, &[], |bytes| {
        asked.push(bytes);
        bounded(bytes, 350_000)
    });
    assert!(matches!(refused, Err(PackError::TooLarge { limit: 350_000, .. })), "{refused:?}");
    assert_eq!(asked.iter().filter(|bytes| **bytes > 350_000).count(), 1, "nothing is asked after that");
    let whole = pack_history(&p.hub, commit, &[], |bytes| bounded(bytes, 1_100_000)).unwrap();
    assert!(whole.len() > 1_000_000);
    store_pack(&p.worker, &whole).unwrap();
    assert!(p.worker.find_commit(to_git(commit)).is_ok());
}
