//! Patch texts that say one thing and do another: the tree that comes of them is judged, or nothing comes of them.
//! T020 to T022, T024, T045.

use std::fs;

use super::{Attack, said};

/// T020 to T022 and T024: names that are quoted, doubled, contradictory or lead out by a pattern.
#[test]
fn t020_to_t024_the_tree_decides_and_not_the_header() {
    let quoted = "diff --git \"a/src/autopack/m\\141in.py\" \"b/src/autopack/m\\141in.py\"\n\
                  index 1111111..2222222 100644\n--- \"a/src/autopack/m\\141in.py\"\n+++ \"b/src/autopack/m\\141in.py\"\n\
                  @@ -1 +1 @@\n-print('core')\n+print('evil')\n";
    let doubled = "diff --git a/src//autopack/x.py b/src//autopack/x.py\nnew file mode 100644\n\
                   index 0000000..1111111\n--- /dev/null\n+++ b/src//autopack/x.py\n@@ -0,0 +1 @@\n+x\n";
    let two_faced = "diff --git a/docs/guide.md b/docs/guide.md\nindex 1111111..2222222 100644\n--- a/src/autopack/main.py\n\
                     +++ b/src/autopack/main.py\n@@ -1 +1 @@\n-print('core')\n+print('evil')\n";
    let traditional = "--- a/src/autopack/main.py\n+++ b/src/autopack/main.py\n@@ -1 +1 @@\n-print('core')\n\
                       +print('evil')\n";
    let index = "Index: docs/guide.md\n===\n--- docs/guide.md\n+++ docs/guide.md\n@@ -1 +1 @@\n-# Guide\n+# X\n";
    let pattern = "diff --git a/docs/../src/x.md b/docs/../src/x.md\nnew file mode 100644\n\
                   index 0000000..1111111\n--- /dev/null\n+++ b/docs/../src/x.md\n@@ -0,0 +1 @@\n+x\n";
    for (id, patch, wanted) in [
        ("T020", quoted, "BLOCKED path_never"),
        ("T021", doubled, "REJECTED unsafe_path"),
        ("T022", two_faced, "REJECTED malformed_patch"),
        ("T022", traditional, "REJECTED malformed_patch"),
        ("T022", index, "REJECTED malformed_patch"),
        ("T024", pattern, "REJECTED unsafe_path"),
    ] {
        let a = Attack::new();
        let said = said(&a.judged_patch(patch));
        assert!(said.starts_with(wanted), "{id}: {said}");
    }
}

/// T045: a patch that does not fit, or whose second half does not, changes no file and no ref.
#[test]
fn t045_a_patch_is_imported_whole_or_not_at_all() {
    let good = "diff --git a/examples/a.txt b/examples/a.txt\nindex 1111111..2222222 100644\n\
                --- a/examples/a.txt\n+++ b/examples/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n";
    let bad = "diff --git a/README.md b/README.md\nindex 1111111..2222222 100644\n\
               --- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-# Other\n+# X\n";
    let a = Attack::new();
    let photo = || {
        let read = |path: &str| fs::read(a.at(path)).unwrap();
        let refs: Vec<_> = a.mirror.repository().unwrap().references().unwrap().map(|r| r.unwrap().target()).collect();
        (read("examples/a.txt"), read("README.md"), refs)
    };
    let before = photo();
    for (patch, wanted) in [(format!("{good}{bad}"), "CONFLICT"), (format!("{bad}{good}"), "CONFLICT")] {
        assert!(said(&a.judged_patch(&patch)).starts_with(wanted), "{}", said(&a.judged_patch(&patch)));
        assert_eq!(photo(), before);
    }
    // The same text twice gives the same tree twice: nothing was applied in between.
    let first = a.judged_patch(good);
    assert_eq!(first, a.judged_patch(good));
    assert_eq!(first.facts.size, 2);
    assert_eq!(photo(), before);
}
