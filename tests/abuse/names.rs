//! Names: git's own folder in every spelling, paths that lead elsewhere, and names that look like others.
//! T001 to T008, T025 to T027.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use autopack_shared::repo::pack::PackError;
use autopack_shared::repo::tree::TreeError;

use super::{Attack, raw, said, stops};

/// T001: a hook in the root's git folder is left out, and a tree or patch that brings one is refused.
#[test]
fn t001_a_hook_is_never_part_of_a_change() {
    let a = Attack::new();
    a.write(".git/hooks/post-checkout", "#!/bin/sh\n");
    fs::set_permissions(a.at(".git/hooks/post-checkout"), fs::Permissions::from_mode(0o755)).unwrap();
    let found = a.collect().unwrap();
    assert!(found.root_git && found.changed.is_empty(), "{found:?}");

    let hook = a.tree(&[(0o100_755, "post-checkout", a.blob(b"#!/bin/sh\n"))]);
    let tree = a.by_hand(&[(0o040_000, ".git", a.tree(&[(0o040_000, "hooks", hook)]))]);
    let refused = a.quarantined(tree).err().unwrap();
    assert!(matches!(refused, PackError::Tree(TreeError::GitInternal { .. })), "{refused}");
    assert!(a.hub_is_as_it_was(tree));

    let patch = "diff --git a/.git/hooks/post-checkout b/.git/hooks/post-checkout\nnew file mode 100755\n\
                 index 0000000..1111111\n--- /dev/null\n+++ b/.git/hooks/post-checkout\n@@ -0,0 +1 @@\n+x\n";
    assert!(said(&a.judged_patch(patch)).starts_with("REJECTED git_internal"));
}

/// T002 to T005 and T008: each spelling that some file system takes for `.git`, in the root and below.
#[test]
fn t002_to_t008_no_spelling_of_the_git_folder_is_collected() {
    let spellings = [
        ".GIT",
        ".Git",
        "git~1",
        "GIT~1",
        "git~2",
        ".git ",
        ".git.",
        ".git::$INDEX_ALLOCATION",
        ".git...:x",
        ".g\u{200c}it",
        ".gi\u{200d}t",
        "\u{feff}.git",
    ];
    for name in spellings {
        for folder in ["", "examples/", "examples/new/"] {
            let a = Attack::new();
            let path = format!("{folder}{name}");
            a.write(&format!("{path}/config"), "[core]\n\tfsmonitor = touch /tmp/owned\n");
            a.write("examples/honest.txt", "h\n");
            let found = a.collect().unwrap();
            assert_eq!(found.nested_git, [path.as_bytes().to_vec()], "{path}");
            assert_eq!(found.changed.len(), 1, "{path}: only the honest file");
            let tree = a.by_hand(&[(0o040_000, name, a.tree(&[(0o100_644, "config", a.blob(b"x"))]))]);
            assert!(a.quarantined(tree).is_err() && a.hub_is_as_it_was(tree), "{path}");
        }
    }
}

/// T008: a repository inside the worktree is neither entered nor recorded as a submodule.
#[test]
fn t008_a_repository_inside_is_no_submodule() {
    let a = Attack::new();
    git2::Repository::init(a.at("examples/nested")).unwrap();
    a.write("examples/nested/file.txt", "f\n");
    let found = a.collect().unwrap();
    assert_eq!(found.nested_git, [b"examples/nested/.git".to_vec()]);
    let modes: Vec<_> = found.changed.iter().filter_map(|change| change.new).map(|leaf| leaf.mode).collect();
    assert_eq!(modes, [0o100_644]);
}

/// T006 and T007: no file system makes such names; whoever makes the tree by hand is refused.
#[test]
fn t006_t007_a_tree_that_leads_elsewhere_is_refused() {
    let a = Attack::new();
    let blob = a.blob(b"x\n");
    for name in ["..", ".", "a/../../escape", "/etc", "a//b", ""] {
        let tree = a.by_hand(&[(0o100_644, name, blob)]);
        match a.quarantined(tree) {
            Err(PackError::Tree(TreeError::Malformed { .. } | TreeError::GitInternal { .. })) => {}
            Ok(quarantine) => {
                let verdict = super::judged(quarantine.repo(), a.base, tree);
                assert!(said(&verdict).starts_with("REJECTED unsafe_path"), "{name:?}: {}", said(&verdict));
            }
            Err(error) => panic!("{name:?}: {error}"),
        }
        assert!(a.hub_is_as_it_was(tree));
    }
}

/// T025: a name that some file system takes for one that is there.
#[test]
fn t025_another_case_is_the_same_name() {
    let a = Attack::new();
    a.write("examples/A.TXT", "evil\n");
    assert!(stops(&a.judged(), "case_collision"), "{}", said(&a.judged()));
    let b = Attack::new();
    b.write("SRC/autopack/main.py", "evil\n");
    let said = said(&b.judged());
    assert!(said.starts_with("REJECTED case_collision") || said.contains("path_never"), "{said}");
}

/// T026: the same letters in another composition, and letters that fold to others.
#[test]
fn t026_one_name_in_two_compositions() {
    let a = Attack::new();
    a.write("examples/e\u{301}.txt", "decomposed\n");
    assert!(stops(&a.judged(), "unsafe_path"), "{}", said(&a.judged()));
    let b = Attack::new();
    b.write("examples/\u{fb01}.txt", "ligature\n");
    b.write("examples/fi.txt", "letters\n");
    assert!(stops(&b.judged(), "case_collision"), "{}", said(&b.judged()));
}

/// T027: names that deceive readers, terminals or other systems. A dash or magic in front is an ordinary name.
#[test]
fn t027_names_that_deceive() {
    let bad: [&[u8]; 8] =
        [b"a\nb", b"a\tb", b"a\x1b[2Jb", b"a\x7f", "a\u{202e}txt.exe".as_bytes(), b"CON", b"NUL.txt", b"\xff\xfe"];
    for name in bad {
        let a = Attack::new();
        fs::write(a.at("examples").join(raw(name)), "x\n").unwrap();
        assert!(said(&a.judged()).starts_with("REJECTED unsafe_path"), "{name:?}: {}", said(&a.judged()));
    }
    for name in ["--help", "-rf", "(glob)x"] {
        let a = Attack::new();
        a.write(&format!("examples/{name}"), "x\n");
        assert!(!said(&a.judged()).contains("unsafe_path"), "{name}: {}", said(&a.judged()));
    }
}
