//! Trees and packs that no tool makes: odd modes, submodules, bombs and smuggled objects, from a sender who is not our
//! worker. T009, T029, T032, T033, T034, T037.

use std::time::Duration;

use git2::{ObjectType, Repository};
use tokio::time::Instant;

use autopack_shared::domain::ids::Oid;
use autopack_shared::repo::facts::{Limits, change_facts};
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::pack::{PackBudget, PackError, Quarantine};

use super::{Attack, said, stops};

/// A pack of just these objects.
fn pack_of(repo: &Repository, oids: &[Oid]) -> Vec<u8> {
    let mut builder = repo.packbuilder().unwrap();
    for oid in oids {
        builder.insert_object(to_git(*oid), None).unwrap();
    }
    let mut bytes = git2::Buf::new();
    builder.write_buf(&mut bytes).unwrap();
    bytes.to_vec()
}

fn quarantine(a: &Attack) -> Quarantine {
    Quarantine::new(&a.dir.path().join("hub/objects"), &a.dir.path().join("scratch")).unwrap()
}

/// T009: a submodule.
#[test]
fn t009_a_submodule_is_stopped() {
    let a = Attack::new();
    let tree = a.by_hand(&[(0o160_000, "sub", a.base)]);
    assert!(stops(&a.judged_tree(tree), "gitlink"), "{}", said(&a.judged_tree(tree)));
}

/// T029: modes that git does not know, or that are another kind of entry.
#[test]
fn t029_odd_modes_are_refused() {
    for mode in [0o100_664, 0o104_755, 0o100_600, 0o106_644, 0o170_000, 0o10_644] {
        let a = Attack::new();
        let tree = a.by_hand(&[(mode, "odd", a.blob(b"x\n"))]);
        assert!(said(&a.judged_tree(tree)).starts_with("REJECTED"), "{mode:o}: {}", said(&a.judged_tree(tree)));
    }
    // A tree entry that is a blob.
    let a = Attack::new();
    let tree = a.by_hand(&[(0o040_000, "folder", a.blob(b"x\n"))]);
    assert!(a.quarantined(tree).is_err() && a.hub_is_as_it_was(tree));
}

/// T032: zeros that a small pack inflates to.
#[test]
fn t032_a_compression_bomb_is_not_inflated() {
    let a = Attack::new();
    let zeros = a.blob(&vec![0; 64 << 20]);
    let pack = pack_of(&a.mirror.repository().unwrap(), &[zeros]);
    assert!(pack.len() < 200_000);
    let budget = PackBudget { inflated: 8 << 20, objects: 10 };
    let refused = quarantine(&a).ingest(&pack, &budget).unwrap_err();
    assert!(matches!(refused, PackError::TooLarge { unit: "bytes", .. }), "{refused}");
}

/// T033: ten to the tenth paths from eleven objects.
#[test]
fn t033_a_tree_bomb_is_judged_within_its_budget() {
    let a = Attack::new();
    let names: Vec<String> = (0..10).map(|n| format!("e{n}")).collect();
    let mut top = a.blob(b"x");
    for level in 0..10 {
        let mode = if level == 0 { 0o100_644 } else { 0o040_000 };
        top = a.tree(&names.iter().map(|name| (mode, name.as_str(), top)).collect::<Vec<_>>());
    }
    let began = Instant::now();
    let tree = a.by_hand(&[(0o040_000, "bomb", top)]);
    let verdict = a.judged_tree(tree);
    assert!(stops(&verdict, "too_large"), "{}", said(&verdict));
    assert!(began.elapsed() < Duration::from_secs(60));
}

/// T034: deeper than anybody follows.
#[test]
fn t034_a_tree_without_end_is_refused() {
    let a = Attack::new();
    let mut top = a.tree(&[(0o100_644, "f", a.blob(b"x"))]);
    for _ in 0..150 {
        top = a.tree(&[(0o040_000, "d", top)]);
    }
    let verdict = a.judged_tree(a.by_hand(&[(0o040_000, "deep", top)]));
    assert!(said(&verdict).starts_with("REJECTED"), "{}", said(&verdict));
    for _ in 0..150 {
        top = a.tree(&[(0o040_000, "d", top)]);
    }
    let tree = a.by_hand(&[(0o040_000, "deep", top)]);
    assert!(a.quarantined(tree).is_err() && a.hub_is_as_it_was(tree));
}

/// T037: objects that the change does not need stay behind; one that it needs and that is not sent is missed.
#[test]
fn t037_nothing_is_smuggled_in_and_nothing_is_left_out() {
    let a = Attack::new();
    let (wanted, extra) = (a.blob(b"wanted\n"), a.blob(b"extra\n"));
    let tree = a.by_hand(&[(0o100_644, "w", wanted)]);
    let repo = a.mirror.repository().unwrap();
    let held = quarantine(&a);
    held.ingest(&pack_of(&repo, &[tree, wanted, extra]), &PackBudget::default()).unwrap();
    let hub = Repository::open_bare(a.hub.path()).unwrap();
    held.promote(&hub, a.base, tree).unwrap();
    let odb = hub.odb().unwrap();
    assert!(odb.exists(to_git(wanted)) && !odb.exists(to_git(extra)));

    let other = a.by_hand(&[(0o100_644, "x", extra)]);
    let held = quarantine(&a);
    held.ingest(&pack_of(&repo, &[other]), &PackBudget::default()).unwrap();
    assert!(held.verify(a.base, other).is_err(), "the hub does not have it either");
    // The id of something that is in the hub, but is no file.
    let odd = a.by_hand(&[(0o100_644, "commit", a.base)]);
    let held = quarantine(&a);
    held.ingest(&pack_of(&repo, &[odd]), &PackBudget::default()).unwrap();
    let facts = change_facts(held.repo(), a.base, odd, &Limits::default());
    assert!(held.verify(a.base, odd).is_err() || facts.is_err(), "a commit was taken for a file");
}

/// T037: the two halves of a known SHA-1 collision would have one id; libgit2 looks for the attack's traces, and here
/// it is enough that an object is stored under what its bytes say and nothing else.
#[test]
fn t037_an_id_is_computed_and_not_believed() {
    let a = Attack::new();
    let blob = a.blob(b"honest\n");
    let mut pack = pack_of(&a.mirror.repository().unwrap(), &[blob]);
    let middle = pack.len() - 24;
    pack[middle] ^= 1;
    assert!(quarantine(&a).ingest(&pack, &PackBudget::default()).is_err());
    let again = from_git(git2::Oid::hash_object(ObjectType::Blob, b"honest\n").unwrap());
    assert_eq!(blob, again);
}
