//! A hub on a git server: pushes that are cut off at any moment, servers that refuse, hang or are gone, a cache that is
//! lost or was left in the middle of something.

use std::time::Duration;

use super::site::{Daemon, Kind, Site, at, options};
use super::*;

fn branch() -> RefName {
    RefName::run(&run())
}

/// Looks until something holds.
fn soon(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} does not happen");
}

#[test]
fn a_push_that_is_killed_at_any_moment_is_resolved_by_the_refs() {
    let s = Site::new(Kind::File);
    let (branch, hub) = (branch(), s.hub.as_ref());
    hub.cas_ref(token(1), &branch, None, s.base, "fork").unwrap();
    let one = Site::commit(hub, s.base, "1\n");
    let cas = |old, new| hub.cas_ref(token(1), &branch, Some(old), new, "apply");

    s.tell_git("die-before");
    let error = cas(s.base, one).unwrap_err();
    assert!(matches!(error, HubError::ServerAway { .. }), "{error}");
    assert_eq!(s.at(&branch), Some(s.base), "nothing was sent");
    assert_eq!(cas(s.base, one).unwrap(), CasOutcome::Applied);

    s.tell_git("die-after");
    let two = Site::commit(hub, one, "2\n");
    assert_eq!(cas(one, two).unwrap(), CasOutcome::Already, "the server had moved it");
    assert_eq!(s.at(&branch), Some(two));

    // Killed while the server works on it: it ends after we have looked.
    let (inside, go) = (s.dir.path().join("inside"), s.dir.path().join("go"));
    let script = format!("touch '{}'; while ! [ -e '{}' ]; do sleep 0.01; done", inside.display(), go.display());
    s.hook("pre-receive", &script);
    s.tell_git("die-inside");
    let three = Site::commit(hub, two, "3\n");
    let error = cas(two, three).unwrap_err();
    assert!(matches!(error, HubError::ServerAway { .. }), "{error}");
    assert_eq!(s.at(&branch), Some(two));
    fs::write(&go, "").unwrap();
    soon("the push", || s.at(&branch) == Some(three));
    assert_eq!(cas(two, three).unwrap(), CasOutcome::Already);
    assert_eq!(cas(three, Site::commit(hub, three, "4\n")).unwrap(), CasOutcome::Applied);
}

#[test]
fn a_late_push_of_a_dead_director_meets_the_new_fence() {
    let s = Site::new(Kind::File);
    let (branch, next) = (branch(), s.supervisor("two"));
    s.hub.cas_ref(token(1), &branch, None, s.base, "fork").unwrap();
    let one = Site::commit(s.hub.as_ref(), s.base, "1\n");
    let (inside, go) = (s.dir.path().join("inside"), s.dir.path().join("go"));
    // The first push that comes waits on the server, before its refs are looked at again and moved.
    let wait = format!("touch '{}'; while ! [ -e '{}' ]; do sleep 0.01; done", inside.display(), go.display());
    s.hook("pre-receive", &format!("if ! [ -e '{}' ]; then {wait}; fi", inside.display()));
    s.tell_git("die-inside");
    s.hub.cas_ref(token(1), &branch, Some(s.base), one, "apply").unwrap_err();
    next.bump_fence(token(2)).unwrap();
    fs::write(&go, "").unwrap();
    let again = Site::commit(next.as_ref(), s.base, "2\n");
    assert_eq!(next.cas_ref(token(2), &branch, Some(s.base), again, "redo").unwrap(), CasOutcome::Applied);
    assert_eq!(s.at(&branch), Some(again));
    assert_eq!(s.supervisor("three").fence().unwrap(), Some(token(2)));
}

#[test]
fn a_raise_that_is_killed_is_made_again() {
    let s = Site::new(Kind::File);
    s.tell_git("die-after");
    s.hub.bump_fence(token(2)).unwrap();
    s.tell_git("die-before");
    assert!(matches!(s.hub.bump_fence(token(3)), Err(HubError::ServerAway { .. })));
    assert_eq!(s.hub.fence().unwrap(), Some(token(2)));
    s.hub.bump_fence(token(3)).unwrap();
}

#[test]
fn every_write_makes_another_fence() {
    let s = Site::new(Kind::File);
    let other = s.supervisor("two");
    let mut seen = vec![s.truth().refname_to_id("refs/autopack/fence").unwrap()];
    for number in 1..4 {
        let hub = if number % 2 == 0 { s.hub.as_ref() } else { other.as_ref() };
        hub.keep_alive(token(1), &attempt(number), s.base).unwrap();
        let fence = s.truth().refname_to_id("refs/autopack/fence").unwrap();
        assert!(!seen.contains(&fence), "a push that finds the fence up to date is not held by it");
        seen.push(fence);
    }
}

#[test]
fn a_server_without_atomic_pushes_is_refused() {
    let s = Site::new(Kind::File);
    s.truth().config().unwrap().set_bool("receive.advertiseAtomic", false).unwrap();
    let before = s.refs();
    assert!(matches!(s.hub.check(), Err(HubError::Unfit { .. })));
    let error = s.hub.cas_ref(token(1), &branch(), None, s.base, "fork").unwrap_err();
    assert!(matches!(error, HubError::Unfit { .. }), "{error}");
    assert_eq!(s.refs(), before);
}

#[test]
fn a_server_that_says_no_is_quoted() {
    let s = Site::new(Kind::File);
    let before = s.refs();
    s.hook("pre-receive", "echo 'only on working days'; exit 1");
    let error = s.hub.cas_ref(token(1), &branch(), None, s.base, "fork").unwrap_err();
    assert!(matches!(&error, HubError::Refused { said, .. } if said.contains("only on working days")), "{error}");
    assert!(matches!(s.hub.check(), Err(HubError::Refused { .. })));
    // A hook for one ref takes the whole push down: a fence never moves without its branch.
    fs::remove_file(s.dir.path().join("repo.git/hooks/pre-receive")).unwrap();
    s.hook("update", "case \"$1\" in refs/heads/*) exit 1;; esac");
    let error = s.hub.cas_ref(token(1), &branch(), None, s.base, "fork").unwrap_err();
    assert!(matches!(&error, HubError::Refused { .. }), "{error}");
    assert_eq!(s.refs(), before);
}

#[test]
fn a_server_that_is_gone_or_hangs_is_away_and_comes_back() {
    let mut s = Site::new(Kind::Served);
    let port = s.daemon.as_ref().unwrap().port;
    s.daemon = None;
    let error = s.hub.cas_ref(token(1), &branch(), None, s.base, "fork").unwrap_err();
    assert!(matches!(error, HubError::ServerAway { .. }), "{error}");
    assert!(matches!(s.hub.tip(&branch()), Err(HubError::ServerAway { .. })));
    s.daemon = Some(Daemon::start(s.dir.path(), Some(port)));
    assert_eq!(s.hub.cas_ref(token(1), &branch(), None, s.base, "fork").unwrap(), CasOutcome::Applied);

    let address = format!("git://127.0.0.1:{port}/repo.git");
    let hasty = RemoteOptions { carry: Duration::from_millis(300), ..options(s.dir.path(), "hasty") };
    let hasty = at(&address, hasty).unwrap();
    hasty.repository(&[]).unwrap();
    s.tell_git("hang");
    let error = hasty.bump_fence(token(2)).unwrap_err();
    assert!(matches!(error, HubError::ServerAway { .. }), "{error}");
    assert_eq!(s.hub.fence().unwrap(), Some(token(1)));
}

#[test]
fn a_cache_that_is_lost_or_was_left_in_the_middle_is_filled_again() {
    let s = Site::new(Kind::File);
    s.hub.cas_ref(token(1), &branch(), None, s.base, "fork").unwrap();
    let two = s.supervisor("two");
    assert!(two.has(s.base).unwrap());
    let cache = s.dir.path().join("two/hubs/shop.git");
    let left =
        [cache.join("refs/heads/main.lock"), cache.join("packed-refs.lock"), cache.join("objects/pack/tmp_pack_x")];
    for file in &left {
        fs::write(file, "").unwrap();
    }
    drop(two);
    let again = s.supervisor("two");
    assert!(left.iter().all(|file| !file.exists()));
    let theirs = s.pushed("refs/heads/main", s.base, "theirs.txt");
    assert!(again.has(theirs).unwrap());
    fs::remove_dir_all(&cache).unwrap();
    let anew = s.supervisor("two");
    assert_eq!(anew.tip(&RefName::target("refs/heads/main").unwrap()).unwrap(), Some(theirs));
    anew.verify(theirs).unwrap();
}

#[test]
fn a_cache_does_not_become_a_heap_of_packs() {
    let s = Site::new(Kind::File);
    let two = s.supervisor("two");
    let mut tip = s.base;
    for round in 0..30 {
        tip = s.pushed("refs/heads/main", tip, &format!("{round}.txt"));
        assert!(two.has(tip).unwrap());
    }
    let packs = fs::read_dir(s.dir.path().join("two/hubs/shop.git/objects/pack")).unwrap();
    let packs = packs.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "pack")).count();
    assert!(packs < 24, "{packs} packs");
    two.verify(tip).unwrap();
    assert!(two.is_ancestor(s.base, tip).unwrap());
}

#[test]
fn what_is_known_of_refs_is_not_older_than_a_moment() {
    let s = Site::new(Kind::File);
    let address = format!("file://{}", s.dir.path().join("repo.git").display());
    let slow = RemoteOptions { recent: Duration::from_secs(3600), ..options(s.dir.path(), "slow") };
    let slow = at(&address, slow).unwrap();
    let main = RefName::target("refs/heads/main").unwrap();
    assert_eq!(slow.tip(&main).unwrap(), Some(s.base));
    let theirs = s.pushed("refs/heads/main", s.base, "theirs.txt");
    assert_eq!(slow.tip(&main).unwrap(), Some(s.base), "within the moment");
    // A write that rests on it finds out, and its own move is seen at once.
    let one = Site::commit(&slow, s.base, "1\n");
    let moved = slow.cas_ref(token(1), &main, Some(s.base), one, "land").unwrap();
    assert_eq!(moved, CasOutcome::Moved { tip: Some(theirs) });
    let two = Site::commit(&slow, theirs, "2\n");
    assert_eq!(slow.cas_ref(token(1), &main, Some(theirs), two, "land").unwrap(), CasOutcome::Applied);
    assert_eq!(slow.tip(&main).unwrap(), Some(two));
    // And a fence that was raised elsewhere is noticed by a write that has nothing to do.
    s.hub.bump_fence(token(2)).unwrap();
    assert!(matches!(slow.cas_ref(token(1), &main, Some(theirs), two, "x"), Err(HubError::Fenced { .. })));
}

#[test]
fn a_cache_forgets_what_nothing_needs_any_more() {
    let s = Site::new(Kind::File);
    let address = format!("file://{}", s.dir.path().join("repo.git").display());
    let small =
        |expiry: u64| RemoteOptions { slack: 0, expiry: Duration::from_secs(expiry), ..options(s.dir.path(), "small") };
    let truth = s.truth();
    let who = git2::Signature::now("a", "a@b").unwrap();
    let base = truth.find_commit(to_git(s.base)).unwrap();
    // Bytes that do not compress, on a branch of their own.
    let push = |name: &str, seed: u64| {
        let mut state = seed;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let blob = truth.blob(&(0..200_000).map(|_| noise()).collect::<Vec<u8>>()).unwrap();
        let mut tree = truth.treebuilder(None).unwrap();
        tree.insert("noise", blob, 0o100_644).unwrap();
        let tree = truth.find_tree(tree.write().unwrap()).unwrap();
        let commit = truth.commit(Some(&format!("refs/heads/{name}")), &who, &who, "m\n", &tree, &[&base]).unwrap();
        (from_git(commit), from_git(blob))
    };
    let hub = at(&address, small(3600)).unwrap();
    let (_, kept) = push("kept", 1);
    let (gone, lost) = push("gone", 2);
    let has = |hub: &RemoteHub, oid: Oid| hub.repository(&[]).unwrap().odb().unwrap().exists(to_git(oid));
    hub.repository(&[gone]).unwrap();
    let early = Site::commit(&hub, s.base, "not pushed yet\n");
    truth.find_reference("refs/heads/gone").unwrap().delete().unwrap();
    let (more, _) = push("more", 3);
    let (again, _) = push("again", 4);
    hub.repository(&[more, again]).unwrap();
    assert!(has(&hub, lost) && has(&hub, early), "what is young stays");
    drop(hub);
    // An hour later.
    let hub = at(&address, small(0)).unwrap();
    let one = |seed: u64| {
        let (commit, _) = push(&format!("n{seed}"), seed);
        hub.repository(&[commit]).unwrap();
        commit
    };
    let newest: Vec<Oid> = (5..12).map(one).collect();
    assert!(!has(&hub, lost), "what is in no ref is gone");
    assert!(has(&hub, kept) && newest.iter().all(|commit| has(&hub, *commit)), "what a ref has stays");
    assert!(hub.verify(more).is_ok() && hub.tree_of(gone).is_err());
}
