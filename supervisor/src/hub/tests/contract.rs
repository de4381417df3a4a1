//! What every hub does, wherever it is: by its path, behind git's own receiver, behind a server process.

use std::sync::Barrier;

use autopack_shared::repo::merge::Merged;
use autopack_shared::repo::pack::{PackBudget, pack_new_objects};
use autopack_shared::repo::tree::TreeError;

use super::site::{Kind, Site};
use super::*;

macro_rules! contract {
    ($($module:ident: $kind:expr => [$($case:ident),* $(,)?];)*) => {
        $(mod $module {
            use super::*;
            $(#[test] fn $case() { super::$case(&Site::new($kind)); })*
        })*
    };
}

contract! {
    by_path: Kind::Path => [
        compare_and_set, forward_only, the_fence_never_goes_back, one_of_racing_writers_wins, save_points,
        pending_objects, a_zombie_moves_nothing, an_apply_is_done_once, results_reach_a_cold_supervisor,
        somebody_else_pushes, names_in_the_way, what_head_says, one_cluster_owns_it,
    ];
    by_file: Kind::File => [
        compare_and_set, forward_only, the_fence_never_goes_back, one_of_racing_writers_wins, save_points,
        pending_objects, a_zombie_moves_nothing, an_apply_is_done_once, results_reach_a_cold_supervisor,
        somebody_else_pushes, names_in_the_way, what_head_says, one_cluster_owns_it,
    ];
    by_server: Kind::Served => [a_zombie_moves_nothing, results_reach_a_cold_supervisor, somebody_else_pushes, one_cluster_owns_it];
}

fn branch() -> RefName {
    RefName::run(&run())
}

fn phase() -> PhaseId {
    PhaseId::new("p1").unwrap()
}

fn compare_and_set(s: &Site) {
    let (branch, hub) = (branch(), s.hub.as_ref());
    let (one, other) = (Site::commit(hub, s.base, "1\n"), Site::commit(hub, s.base, "2\n"));
    let cas = |epoch, old, new| hub.cas_ref(token(epoch), &branch, old, new, "test");
    assert_eq!(hub.tip(&branch).unwrap(), None);
    assert_eq!(cas(1, None, s.base).unwrap(), CasOutcome::Applied);
    assert_eq!(cas(1, None, s.base).unwrap(), CasOutcome::Already);
    assert_eq!(cas(1, None, one).unwrap(), CasOutcome::Moved { tip: Some(s.base) });
    assert_eq!(cas(1, Some(s.base), one).unwrap(), CasOutcome::Applied);
    assert_eq!(cas(1, Some(s.base), one).unwrap(), CasOutcome::Already);
    assert_eq!(cas(1, Some(s.base), other).unwrap(), CasOutcome::Moved { tip: Some(one) });
    let early = cas(3, Some(one), Site::commit(hub, one, "3\n")).unwrap_err();
    assert!(matches!(early, HubError::Fenced { .. }), "a token that was never granted is no better: {early}");
    assert_eq!((s.at(&branch), hub.tip(&branch).unwrap()), (Some(one), Some(one)));
}

fn forward_only(s: &Site) {
    let (branch, hub) = (branch(), s.hub.as_ref());
    let one = Site::commit(hub, s.base, "1\n");
    hub.cas_ref(token(1), &branch, None, one, "test").unwrap();
    let back = hub.cas_ref(token(1), &branch, Some(one), s.base, "test").unwrap_err();
    assert!(matches!(back, HubError::NotForward { .. }), "{back}");
    let absent = Oid::from_bytes([9; 20]);
    let error = hub.cas_ref(token(1), &branch, Some(one), absent, "test").unwrap_err();
    assert!(matches!(error, HubError::Tree(TreeError::Missing { oid }) if oid == absent), "{error}");
    let tree = Site::tree_of(hub, s.base, "b.txt", "x");
    let error = hub.cas_ref(token(1), &branch, Some(one), tree, "test").unwrap_err();
    assert!(matches!(error, HubError::Tree(TreeError::WrongKind { .. })), "{error}");
    assert_eq!(s.at(&branch), Some(one));
}

fn the_fence_never_goes_back(s: &Site) {
    let high = FencingToken { incarnation: 2, epoch: 1 };
    s.hub.bump_fence(token(7)).unwrap();
    s.hub.bump_fence(token(7)).unwrap();
    let other = s.supervisor("two");
    other.bump_fence(high).unwrap();
    let error = s.hub.bump_fence(token(9)).unwrap_err();
    assert!(matches!(error, HubError::Fenced { current: Some(current), .. } if current == high), "{error}");
    assert_eq!(s.hub.fence().unwrap(), Some(high));
    let repo = s.truth();
    let blob = repo.find_reference("refs/autopack/fence").unwrap().peel_to_blob().unwrap();
    assert!(blob.content().starts_with(b"2 1"));
    // What is no token is no fence.
    repo.reference("refs/autopack/fence", repo.blob(b"nine\n").unwrap(), true, "").unwrap();
    assert!(matches!(s.hub.bump_fence(token(9)), Err(HubError::BadFence)));
}

fn one_of_racing_writers_wins(s: &Site) {
    let branch = branch();
    s.hub.cas_ref(token(1), &branch, None, s.base, "test").unwrap();
    let racers: Vec<Box<dyn Hub>> = (0..3).map(|n| s.supervisor(&format!("racer-{n}"))).collect();
    let mut tip = s.base;
    for round in 0..2 {
        let start = Barrier::new(racers.len());
        let race = |(n, hub): (usize, &dyn Hub)| {
            let new = Site::commit(hub, tip, &format!("{round}.{n}\n"));
            start.wait();
            (new, hub.cas_ref(token(1), &branch, Some(tip), new, "race").unwrap())
        };
        let ended: Vec<(Oid, CasOutcome)> = std::thread::scope(|scope| {
            let race = &race;
            let running: Vec<_> =
                racers.iter().enumerate().map(|(n, hub)| scope.spawn(move || race((n, hub.as_ref())))).collect();
            running.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winner = ended.iter().find(|(_, outcome)| *outcome == CasOutcome::Applied).unwrap();
        tip = s.at(&branch).unwrap();
        assert_eq!(tip, winner.0);
        let lost = CasOutcome::Moved { tip: Some(tip) };
        assert_eq!(ended.iter().filter(|(_, outcome)| *outcome == lost).count(), 2, "{ended:?}");
    }
}

fn save_points(s: &Site) {
    let hub = s.hub.as_ref();
    let one = Site::commit(hub, s.base, "1\n");
    assert_eq!(hub.save_point(token(1), &attempt(1), s.base).unwrap(), SavePoint { commit: s.base, tagged: true });
    assert!(hub.save_point(token(1), &attempt(1), s.base).unwrap().tagged, "again is fine");
    assert!(s.supervisor("two").save_point(token(1), &attempt(2), s.base).unwrap().tagged);
    assert!(hub.save_point(token(1), &attempt(2), one).unwrap().tagged);
    assert_eq!(s.at(&RefName::save(&run(), &phase(), 1)), Some(s.base));
    assert_eq!(s.at(&RefName::save(&run(), &phase(), 2)), Some(one));
    assert_eq!(s.at(&RefName::save_tag(&run(), &phase())), Some(one));
    let foreign = s.pushed("refs/tags/save-before-fix-docs-p1", s.base, "theirs.txt");
    assert!(!hub.save_point(token(1), &attempt(3), one).unwrap().tagged);
    assert_eq!(s.at(&RefName::save_tag(&run(), &phase())), Some(foreign));
}

fn pending_objects(s: &Site) {
    let hub = s.hub.as_ref();
    let tree = Site::tree_of(hub, s.base, "pending.txt", "p\n");
    hub.keep_alive(token(1), &attempt(1), tree).unwrap();
    hub.keep_alive(token(1), &attempt(1), tree).unwrap();
    hub.keep_alive(token(1), &attempt(2), s.base).unwrap();
    assert_eq!(s.truth().refname_to_id("refs/autopack/q/fix-docs/4/1/p1").unwrap(), to_git(tree));
    assert!(s.truth().find_tree(to_git(tree)).unwrap().get_name("pending.txt").is_some());
    assert_eq!(hub.release(token(1), &RunId::new("fix").unwrap()).unwrap(), 0);
    assert_eq!(s.supervisor("two").release(token(1), &run()).unwrap(), 2);
    assert_eq!(hub.release(token(1), &run()).unwrap(), 0);
    assert!(s.truth().refname_to_id("refs/autopack/q/fix-docs/4/1/p1").is_err());
}

/// `coordination.md` 3.13, 1: a director pauses, another one takes over, the first one wakes up in each of its verbs.
fn a_zombie_moves_nothing(s: &Site) {
    let (branch, zombie, next) = (branch(), s.hub.as_ref(), s.supervisor("two"));
    zombie.cas_ref(token(1), &branch, None, s.base, "fork").unwrap();
    zombie.keep_alive(token(1), &attempt(1), s.base).unwrap();
    let one = Site::commit(zombie, s.base, "1\n");
    next.bump_fence(token(2)).unwrap();
    let before = s.refs();
    let fenced = |what: &str, done: Result<(), HubError>| {
        assert!(matches!(&done, Err(HubError::Fenced { current: Some(c), .. }) if *c == token(2)), "{what}: {done:?}");
        assert_eq!(s.refs(), before, "{what}");
    };
    let old = (s.base, one);
    fenced("move", zombie.cas_ref(token(1), &branch, Some(s.base), one, "zombie").map(drop));
    fenced("apply", zombie.apply(token(1), &attempt(1), &branch, old, "zombie").map(drop));
    fenced("no move", zombie.cas_ref(token(1), &branch, Some(s.base), s.base, "zombie").map(drop));
    fenced("save", zombie.save_point(token(1), &attempt(1), s.base).map(drop));
    fenced("keep", zombie.keep_alive(token(1), &attempt(9), s.base));
    fenced("release", zombie.release(token(1), &run()).map(drop));
    fenced("raise", zombie.bump_fence(token(1)));
    // The one that is in charge had nothing of its own, and makes the same commit.
    let again = Site::commit(next.as_ref(), s.base, "1\n");
    assert_eq!(again, one);
    assert_eq!(next.cas_ref(token(2), &branch, Some(s.base), again, "redo").unwrap(), CasOutcome::Applied);
    assert_eq!(s.at(&branch), Some(one));
}

/// `coordination.md` 3.13, 2: the move was made, and nobody heard of it.
fn an_apply_is_done_once(s: &Site) {
    let (branch, hub) = (branch(), s.hub.as_ref());
    hub.cas_ref(token(1), &branch, None, s.base, "fork").unwrap();
    let (one, two) = (Site::commit(hub, s.base, "1\n"), Site::commit(hub, s.base, "2\n"));
    let apply = |hub: &dyn Hub, epoch, new| hub.apply(token(epoch), &attempt(1), &branch, (s.base, new), "apply");
    assert_eq!(apply(hub, 1, one).unwrap(), CasOutcome::Applied);
    assert_eq!(s.at(&RefName::save(&run(), &phase(), 1)), Some(s.base));
    assert_eq!(s.at(&RefName::save_tag(&run(), &phase())), Some(s.base));
    assert_eq!(apply(hub, 1, one).unwrap(), CasOutcome::Already);
    let next = s.supervisor("two");
    next.bump_fence(token(2)).unwrap();
    assert_eq!(apply(next.as_ref(), 2, one).unwrap(), CasOutcome::Already);
    Site::commit(next.as_ref(), s.base, "2\n");
    assert_eq!(apply(next.as_ref(), 2, two).unwrap(), CasOutcome::Moved { tip: Some(one) });
    assert_eq!(s.at(&branch), Some(one));
    next.verify(one).unwrap();
}

/// A worker's result comes in through one supervisor and is judged, applied and shown by another.
fn results_reach_a_cold_supervisor(s: &Site) {
    let (hub, cold) = (s.hub.as_ref(), s.supervisor("two"));
    let worker = hub.repository(&[s.base]).unwrap();
    let odb = worker.odb().unwrap();
    let blob = from_git(odb.write(ObjectType::Blob, b"made by a worker\n").unwrap());
    let result = tree::write(&odb, vec![Entry { mode: 0o100_644, name: b"w.txt".to_vec(), oid: blob }]).unwrap();
    let pack = pack_new_objects(&worker, s.base, result).unwrap();
    // The one that takes it in has never seen the base.
    let taker = s.supervisor("three");
    let quarantine = taker.quarantine(s.base).unwrap();
    quarantine.ingest(&pack, &PackBudget::default()).unwrap();
    quarantine.verify(s.base, result).unwrap();
    taker.promote(&quarantine, s.base, result).unwrap();
    taker.keep_alive(token(1), &attempt(1), result).unwrap();

    assert!(cold.has(result).unwrap() && cold.has(blob).unwrap());
    assert!(!cold.has(Oid::from_bytes([7; 20])).unwrap());
    let spec = CommitSpec { tree: result, parents: vec![s.base], message: "apply".into(), seconds: 5 };
    let commit = s.supervisor("four").commit(&spec).unwrap();
    assert_eq!(cold.commit(&spec).unwrap(), commit);
    assert_eq!(cold.cas_ref(token(1), &branch(), None, commit, "apply").unwrap(), CasOutcome::Applied);
    let fresh = s.supervisor("five");
    assert_eq!(fresh.read_file_at(commit, "w.txt", 100).unwrap().unwrap(), b"made by a worker\n");
    assert!(fresh.is_ancestor(s.base, commit).unwrap());
    fresh.verify(commit).unwrap();
}

/// Somebody moves the branch; the change is put on top of what they did.
fn somebody_else_pushes(s: &Site) {
    let (branch, hub) = (branch(), s.hub.as_ref());
    hub.cas_ref(token(1), &branch, None, s.base, "fork").unwrap();
    let one = Site::commit(hub, s.base, "1\n");
    let theirs = s.pushed(branch.as_str(), s.base, "theirs.txt");
    let refs = s.refs();
    let moved = hub.apply(token(1), &attempt(1), &branch, (s.base, one), "apply").unwrap();
    assert_eq!(moved, CasOutcome::Moved { tip: Some(theirs) });
    assert!(s.kind() == Kind::Path || s.refs() == refs, "not even a save point");
    assert_eq!(hub.tip(&branch).unwrap(), Some(theirs));
    let tree = hub.tree_of(one).unwrap();
    let Merged::Clean(merged) = hub.rebase_tree(s.base, tree, theirs).unwrap() else { panic!("it is clean") };
    assert!(hub.same_change((s.base, tree), (theirs, merged)).unwrap());
    let spec = CommitSpec { tree: merged, parents: vec![theirs], message: "again".into(), seconds: 6 };
    let new = hub.commit(&spec).unwrap();
    assert_eq!(hub.apply(token(1), &attempt(2), &branch, (theirs, new), "apply").unwrap(), CasOutcome::Applied);
    let repo = s.truth();
    let tree = repo.find_commit(to_git(new)).unwrap().tree().unwrap();
    assert!(["a.txt", "b.txt", "theirs.txt"].iter().all(|name| tree.get_name(name).is_some()));
    // And deletes it.
    s.truth().find_reference(branch.as_str()).unwrap().delete().unwrap();
    let gone = hub.cas_ref(token(1), &branch, Some(new), Site::commit(hub, new, "3\n"), "test").unwrap();
    assert_eq!((gone, hub.tip(&branch).unwrap()), (CasOutcome::Moved { tip: None }, None));
}

fn names_in_the_way(s: &Site) {
    let hub = s.hub.as_ref();
    s.pushed("refs/heads/autopack/fix-docs/more", s.base, "x");
    let error = hub.cas_ref(token(1), &branch(), None, s.base, "fork").unwrap_err();
    assert!(matches!(&error, HubError::Collides { other, .. } if other.ends_with("fix-docs/more")), "{error}");
    let repo = s.truth();
    repo.find_reference("refs/heads/autopack/fix-docs/more").unwrap().delete().unwrap();
    repo.reference_symbolic(branch().as_str(), "refs/heads/main", true, "").unwrap();
    let error = hub.cas_ref(token(1), &branch(), Some(s.base), s.base, "fork").unwrap_err();
    assert!(matches!(error, HubError::Symbolic { .. }), "{error}");
    assert_eq!(s.at(&RefName::target("refs/heads/main").unwrap()), Some(s.base));
}

fn what_head_says(s: &Site) {
    let head = s.hub.head().unwrap();
    assert_eq!((head.oid, head.branch.as_deref()), (Some(s.base), Some("refs/heads/main")));
    let main = RefName::target("refs/heads/main").unwrap();
    assert_eq!(s.hub.checked_out(&main).unwrap(), None, "a bare repository has no checkout");
    let one = Site::commit(s.hub.as_ref(), s.base, "1\n");
    assert_eq!(s.hub.cas_ref(token(1), &main, Some(s.base), one, "land").unwrap(), CasOutcome::Applied);
    assert_eq!(s.supervisor("two").head().unwrap().oid, Some(one));
    s.hub.check().unwrap();
    assert!(s.refs().iter().all(|(name, _)| !name.contains("probe")), "{:?}", s.refs());
}

fn one_cluster_owns_it(s: &Site) {
    let (hub, other) = (s.hub.as_ref(), s.supervisor("two"));
    assert_eq!(hub.cluster().unwrap(), None);
    hub.claim("one").unwrap();
    hub.claim("one").unwrap();
    other.claim("one").unwrap();
    assert_eq!(s.supervisor("three").cluster().unwrap().as_deref(), Some("one"));
    let foreign = other.claim("another").unwrap_err();
    assert!(
        matches!(&foreign, HubError::Foreign { found, ours, .. } if found == "one" && ours == "another"),
        "{foreign}"
    );
    assert_eq!(hub.cluster().unwrap().as_deref(), Some("one"));
    assert_eq!(hub.fence().unwrap(), Some(token(1)), "the fence is as it was");
    // By hand, once the other one is gone for good.
    s.truth().find_reference("refs/autopack/cluster").unwrap().delete().unwrap();
    s.supervisor("four").claim("another").unwrap();
}
