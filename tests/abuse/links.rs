//! Links: out of the repository, through one another, in place of what was there, and second names of files.
//! T013 to T016, T040, T043.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use autopack_shared::repo::collect::CollectError;

use super::{Attack, Ends, said, stops};

/// T013 and T014: a link out of the repository, at once or through another link.
#[test]
fn t013_t014_a_link_that_leaves_is_refused() {
    for target in ["/etc/shadow", "../../../../etc/shadow", "../..", "loop"] {
        let a = Attack::new();
        symlink(target, a.at("examples/loop")).unwrap();
        let verdict = a.judged();
        assert!(
            stops(&verdict, "symlink_escape") && said(&verdict).starts_with("REJECTED"),
            "{target}: {}",
            said(&verdict)
        );
    }
    let a = Attack::new();
    symlink("deep", a.at("examples/one")).unwrap();
    symlink("one/../../../etc", a.at("examples/two")).unwrap();
    assert!(stops(&a.judged(), "symlink_escape"), "{}", said(&a.judged()));
}

/// T015: a link to what is protected is a change of it.
#[test]
fn t015_a_link_counts_as_what_it_leads_to() {
    let a = Attack::new();
    symlink("../src/autopack", a.at("examples/l")).unwrap();
    let verdict = a.judged();
    assert!(stops(&verdict, "symlink_new") && stops(&verdict, "path_protected"), "{}", said(&verdict));
}

/// T016: a file through a link of the same change. On disk the link is not followed; a text that tries it is refused.
#[test]
fn t016_nothing_is_written_through_a_link() {
    let a = Attack::new();
    let outside = a.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, a.at("examples/lnk")).unwrap();
    a.write("examples/lnk/x", "through\n");
    assert_eq!(a.changed(), ["examples/lnk"], "the link itself, and nothing behind it");
    let patch = "diff --git a/examples/lnk b/examples/lnk\nnew file mode 120000\nindex 0000000..1111111\n--- /dev/null\n\
                 +++ b/examples/lnk\n@@ -0,0 +1 @@\n+/tmp\n\\ No newline at end of file\n\
                 diff --git a/examples/lnk/x b/examples/lnk/x\nnew file mode 100644\nindex 0000000..2222222\n\
                 --- /dev/null\n+++ b/examples/lnk/x\n@@ -0,0 +1 @@\n+x\n";
    let said = said(&a.judged_patch(patch));
    let refused = said.starts_with("REJECTED") || said.starts_with("CONFLICT");
    assert!(refused && !said.contains("malformed_patch"), "{said}");
}

/// T040: the worktree is exchanged for a link to somewhere else.
#[test]
fn t040_a_worktree_in_anothers_place_is_not_collected() {
    let a = Attack::new();
    let elsewhere = a.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("stolen"), "s\n").unwrap();
    fs::rename(a.space.path(), a.dir.path().join("moved")).unwrap();
    symlink(&elsewhere, a.space.path()).unwrap();
    assert!(matches!(a.collect(), Err(CollectError::Swapped { .. })));
    fs::remove_file(a.space.path()).unwrap();
    fs::rename(elsewhere, a.space.path()).unwrap();
    assert!(matches!(a.collect(), Err(CollectError::Swapped { .. })), "another folder is no better");
}

/// T040: folders and files that become links while they are collected. Whatever is seen, it is nothing from outside.
#[test]
fn t040_exchanges_during_collection_bring_nothing_in() {
    let a = Attack::new();
    let outside = a.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("b.txt"), "SECRET\n").unwrap();
    fs::write(outside.join("a.txt"), "SECRET\n").unwrap();
    symlink(&outside, a.dir.path().join("deep-link")).unwrap();
    symlink(outside.join("a.txt"), a.dir.path().join("file-link")).unwrap();
    let pairs = [("examples/deep", "deep-link"), ("examples/a.txt", "file-link")]
        .map(|(inside, link)| (a.at(inside), a.dir.path().join(link)));
    let done = AtomicBool::new(false);
    let secret = git2::Oid::hash_object(git2::ObjectType::Blob, b"SECRET\n").unwrap();
    std::thread::scope(|scope| {
        let _ends = Ends(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (inside, link) in &pairs {
                    renameat_with(CWD, inside, CWD, link, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        for _ in 0..300 {
            match a.collect() {
                Ok(_) | Err(CollectError::Unstable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            assert!(!a.mirror.repository().unwrap().odb().unwrap().exists(secret), "a file from outside was read");
        }
    });
}

/// T043: a second name for a file of somebody else. The kernel refuses it to builders (`fs.protected_hardlinks`); one
/// that is there is content like any other, and writing to it later changes no prepared or collected tree.
#[test]
fn t043_a_second_name_is_content_and_no_way_in() {
    let a = Attack::new();
    let canary = a.canary();
    fs::hard_link(&canary, a.at("examples/second.txt")).unwrap();
    let first = a.collect().unwrap();
    assert_eq!(first.changed.len(), 1);
    fs::write(a.at("examples/second.txt"), "written through\n").unwrap();
    let second = a.collect().unwrap();
    assert_ne!(first.result_tree, second.result_tree);
    let repo = a.mirror.repository().unwrap();
    let blob = repo.find_blob(autopack_shared::repo::open::to_git(first.changed[0].new.unwrap().oid)).unwrap();
    assert_eq!(blob.content(), b"alive\n", "what was collected stays what it was");
}
