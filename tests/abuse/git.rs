//! Git itself as the weapon: what a builder plants for git to find is found by nobody, because no git of the worker or
//! the supervisor ever looks into a worktree. T038, T039, T044.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Attack, judged};

/// A configuration that runs a program whenever git looks at the tree.
fn config(program: &std::path::Path) -> String {
    let run = program.display();
    format!(
        "[core]\n\tfsmonitor = {run}\n\thooksPath = hooks\n\tsshCommand = {run}\n\tpager = {run}\n[diff]\n\texternal = {run}\n\
         [alias]\n\tstatus = !{run}\n[filter \"evil\"]\n\tclean = {run}\n\tsmudge = {run}\n\trequired = true\n"
    )
}

/// T038: what git reads beside objects. The base is what it was, for the worker and for the hub.
#[test]
fn t038_planted_grafts_and_borrowed_objects_are_not_looked_at() {
    let a = Attack::new();
    let theirs = git2::Repository::init_bare(a.dir.path().join("theirs")).unwrap();
    let evil = theirs.blob(b"borrowed\n").unwrap();
    let replaced = format!(".git/refs/replace/{}", a.base);
    for (path, text) in [
        (".git/objects/info/alternates", format!("{}\n", theirs.path().join("objects").display())),
        (".git/info/grafts", format!("{}\n", a.base)),
        (replaced.as_str(), format!("{evil}\n")),
        (".git/shallow", format!("{}\n", a.base)),
        (".git/HEAD", "ref: refs/heads/main\n".to_owned()),
    ] {
        a.write(path, text);
    }
    a.write("examples/a.txt", "changed\n");
    let found = a.collect().unwrap();
    assert!(found.root_git);
    assert_eq!(a.changed(), ["examples/a.txt"]);
    let repo = a.mirror.repository().unwrap();
    assert!(!repo.odb().unwrap().exists(evil), "objects of the builder's are not borrowed");
    // A ref that replaces the base, in the hub itself, is not followed either.
    let other = a.hub.commit(None, &who(), &who(), "x", &empty(&a), &[]).unwrap();
    a.hub.reference(&format!("refs/replace/{}", a.base), other, true, "evil").unwrap();
    let quarantine = a.quarantined(found.result_tree).unwrap();
    assert_eq!(judged(quarantine.repo(), a.base, found.result_tree).facts.files, 1);
}

fn who() -> git2::Signature<'static> {
    git2::Signature::new("e", "e@example.invalid", &git2::Time::new(0, 0)).unwrap()
}

fn empty(a: &Attack) -> git2::Tree<'_> {
    a.hub.find_tree(a.hub.treebuilder(None).unwrap().write().unwrap()).unwrap()
}

/// T039: the `.git` file leads to a folder of the attacker's, whose configuration runs programs.
#[test]
fn t039_no_git_of_ours_runs_on_what_a_builder_wrote() {
    let a = Attack::new();
    let canary = a.dir.path().join("ran");
    let program = a.dir.path().join("evil.sh");
    fs::write(&program, format!("#!/bin/sh\ntouch {}\n", canary.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = git2::Repository::init(a.dir.path().join("theirs")).unwrap();
    fs::write(theirs.path().join("config"), config(&program)).unwrap();
    fs::create_dir_all(theirs.path().join("hooks")).unwrap();
    for hook in ["post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"] {
        fs::copy(&program, theirs.path().join("hooks").join(hook)).unwrap();
    }
    assert!(!a.at(".git").exists(), "a builder finds no git folder to begin with");
    a.write(".git", format!("gitdir: {}\n", theirs.path().display()));
    a.write("examples/.gitattributes", "* filter=evil diff=evil\n");
    a.write("examples/a.txt", "changed\n");
    let found = a.collect().unwrap();
    assert!(found.root_git, "{found:?}");
    let verdict = a.judged();
    assert_eq!(verdict.facts.files, 2);
    let again = a.mirror.prepare(a.base, u64::MAX, &|| true).unwrap();
    let key = autopack_shared::repo::mirror::WorkspaceKey { epoch: 2, ..a.space.key().clone() };
    a.mirror.create_from(&key, a.base, again).unwrap();
    a.mirror.remove(&key).unwrap();
    a.mirror.cleanup(&[]).unwrap();
    assert!(!canary.exists(), "a program of the builder's ran");
}
