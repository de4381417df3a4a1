//! Collection of what friendly and hostile builders leave.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::super::mirror::tests::{Fixture, key};
use super::super::mirror::{Mirror, Workspace};
use super::super::open::to_git;
use super::*;

const BASE: &[(u32, &str, &str)] = &[
    (0o100_644, ".gitignore", "*.log\n/build/\n!keep.log\n"),
    (0o100_644, "a.txt", "a\n"),
    (0o100_644, "tracked.log", "t\n"),
    (0o100_664, "odd-mode", "o\n"),
    (0o100_644, "src/.gitignore", "gen/\n"),
    (0o100_644, "src/x.rs", "x\n"),
    (0o120_000, "link", "a.txt"),
    (0o160_000, "sub", ""),
];

struct Bench {
    f: Fixture,
    mirror: Mirror,
    ws: Workspace,
}

impl Bench {
    fn new() -> Self {
        let f = Fixture::new();
        let commit = f.commit(BASE);
        let mirror = f.mirror();
        let ws = mirror.create(&key("r", 1), commit).unwrap();
        Self { f, mirror, ws }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.ws.path().join(name)
    }

    fn collect(&self) -> Result<Collected, CollectError> {
        self.mirror.collect(&self.ws, &CollectLimits::default())
    }

    /// `path old-mode new-mode` of each change.
    fn changes(&self, collected: &Collected) -> Vec<String> {
        let mode = |leaf: Option<tree::Leaf>| leaf.map_or("-".to_owned(), |leaf| format!("{:o}", leaf.mode));
        let line = |change: &EntryChange| {
            format!("{} {} {}", String::from_utf8_lossy(&change.path), mode(change.old), mode(change.new))
        };
        collected.changed.iter().map(line).collect()
    }
}

#[test]
fn an_untouched_workspace_is_its_base() {
    let b = Bench::new();
    let collected = b.collect().unwrap();
    let repo = b.mirror.repository().unwrap();
    assert_eq!(collected.result_tree, tree::tree_of(&repo, b.ws.base()).unwrap());
    assert_eq!(collected.changed, []);
}

#[test]
fn edits_of_every_kind_are_seen() {
    let b = Bench::new();
    fs::write(b.path("a.txt"), "changed\r\n").unwrap();
    fs::remove_file(b.path("link")).unwrap();
    symlink("/etc/shadow", b.path("link")).unwrap();
    fs::set_permissions(b.path("src/x.rs"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir(b.path("sub")).unwrap();
    fs::remove_file(b.path("odd-mode")).unwrap();
    fs::create_dir_all(b.path("odd-mode/empty")).unwrap();
    fs::write(b.path("odd-mode/new"), "").unwrap();
    let raw = Path::new(std::ffi::OsStr::from_bytes(b"bad\xff\n"));
    fs::write(b.ws.path().join(raw), "raw name\n").unwrap();
    let collected = b.collect().unwrap();
    assert_eq!(
        b.changes(&collected),
        [
            "a.txt 100644 100644",
            "bad\u{fffd}\n - 100644",
            "link 120000 120000",
            "odd-mode 100664 -",
            "odd-mode/new - 100644",
            "src/x.rs 100644 100755",
            "sub 160000 -",
        ]
    );
    let repo = b.mirror.repository().unwrap();
    let content = |index: usize| {
        let new = collected.changed[index].new.unwrap();
        repo.find_blob(to_git(new.oid)).unwrap().content().to_vec()
    };
    assert_eq!(content(0), b"changed\r\n");
    assert_eq!(content(2), b"/etc/shadow");
}

#[test]
fn the_bases_ignore_files_count_and_the_workspaces_do_not() {
    let b = Bench::new();
    fs::write(b.path("x.log"), "").unwrap();
    fs::write(b.path("keep.log"), "").unwrap();
    fs::write(b.path("tracked.log"), "changed\n").unwrap();
    fs::create_dir_all(b.path("build/deep")).unwrap();
    fs::write(b.path("build/deep/out"), "").unwrap();
    fs::create_dir_all(b.path("src/gen")).unwrap();
    fs::write(b.path("src/gen/out"), "").unwrap();
    fs::create_dir_all(b.path("gen")).unwrap();
    fs::write(b.path("gen/out"), "").unwrap();
    // A builder tries to hide a file by ignoring it.
    fs::write(b.path(".gitignore"), "*\n").unwrap();
    fs::write(b.path("hidden"), "").unwrap();
    let collected = b.collect().unwrap();
    let want = [
        ".gitignore 100644 100644",
        "gen/out - 100644",
        "hidden - 100644",
        "keep.log - 100644",
        "tracked.log 100644 100644",
    ];
    assert_eq!(b.changes(&collected), want);
    assert_eq!(collected.ignored, 3);
}

#[test]
fn tracked_files_below_an_ignored_folder_are_collected() {
    let f = Fixture::new();
    let mirror = f.mirror();
    let base = f.commit(&[(0o100_644, ".gitignore", "out/\n"), (0o100_644, "out/kept", "k\n")]);
    let ws = mirror.create(&key("r", 1), base).unwrap();
    fs::write(ws.path().join("out/kept"), "changed\n").unwrap();
    fs::write(ws.path().join("out/new"), "").unwrap();
    let collected = mirror.collect(&ws, &CollectLimits::default()).unwrap();
    let paths: Vec<_> = collected.changed.iter().map(|change| change.path.as_slice()).collect();
    assert_eq!(paths, [b"out/kept"]);
}

#[test]
fn git_folders_are_reported_and_never_entered() {
    let b = Bench::new();
    fs::create_dir_all(b.path(".git/hooks")).unwrap();
    fs::write(b.path(".git/config"), "[core]\n\tfsmonitor = evil\n").unwrap();
    fs::create_dir_all(b.path("src/nested/.git/hooks")).unwrap();
    fs::create_dir(b.path("file")).unwrap();
    fs::write(b.path("file/.git"), "gitdir: /elsewhere\n").unwrap();
    fs::write(b.path("sub/.git"), "gitdir: /elsewhere\n").unwrap();
    fs::create_dir(b.path(".GIT")).unwrap();
    fs::write(b.path("src/git~1"), "").unwrap();
    let collected = b.collect().unwrap();
    assert!(collected.root_git);
    let named: Vec<_> = collected.nested_git.iter().map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(named, [".GIT", "file/.git", "src/git~1", "src/nested/.git", "sub/.git"]);
    assert_eq!(b.changes(&collected), ["sub 160000 -"], "nothing of the name is in the tree");
}

#[test]
fn what_git_cannot_hold_is_skipped_with_a_notice() {
    let b = Bench::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, b.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(b.path("socket")).unwrap();
    // A pipe in place of a tracked file is a deletion, not a hang.
    fs::remove_file(b.path("a.txt")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, b.path("a.txt"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let collected = b.collect().unwrap();
    let skipped: Vec<_> = collected.skipped.iter().map(|one| (one.path.as_slice(), one.kind)).collect();
    assert_eq!(
        skipped,
        [(&b"a.txt"[..], SkippedKind::Fifo), (b"pipe", SkippedKind::Fifo), (b"socket", SkippedKind::Socket)]
    );
    assert_eq!(b.changes(&collected), ["a.txt 100644 -"]);
}

#[test]
fn links_are_never_followed() {
    let b = Bench::new();
    let outside = b.f.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s\n").unwrap();
    fs::remove_dir_all(b.path("src")).unwrap();
    symlink(&outside, b.path("src")).unwrap();
    let collected = b.collect().unwrap();
    assert_eq!(b.changes(&collected), ["src - 120000", "src/.gitignore 100644 -", "src/x.rs 100644 -"]);

    // The workspace itself replaced by a link to elsewhere.
    let moved = b.f.dir.path().join("moved");
    fs::rename(b.ws.path(), &moved).unwrap();
    symlink(&outside, b.ws.path()).unwrap();
    assert!(matches!(b.collect(), Err(CollectError::Swapped { .. })));
    let repo = b.mirror.repository().unwrap();
    let by_handle = collect(b.ws.dir(), &repo, b.ws.base(), &CollectLimits::default()).unwrap();
    assert_eq!(by_handle.result_tree, collected.result_tree, "the handle still is the real folder");
}

#[test]
fn an_entry_that_becomes_a_link_between_listing_and_opening_is_not_opened() {
    let b = Bench::new();
    symlink("/etc/passwd", b.path("trap")).unwrap();
    let repo = b.mirror.repository().unwrap();
    let odb = repo.odb().unwrap();
    let walk = walk::Walk::new(&odb, CollectLimits::default(), None);
    let error = walk.open(b.ws.dir(), b"trap", rustix::fs::OFlags::empty()).unwrap_err();
    assert!(matches!(error, CollectError::Unstable { .. }), "{error}");
    let error = walk.open(fs::File::open("/").unwrap().as_fd(), b"proc", rustix::fs::OFlags::DIRECTORY).unwrap_err();
    assert!(matches!(error, CollectError::Mount { .. }), "{error}");
}

#[test]
fn what_cannot_be_read_is_named_and_what_drifts_is_noticed() {
    let b = Bench::new();
    let repo = b.mirror.repository().unwrap();
    let odb = repo.odb().unwrap();
    let walk = walk::Walk::new(&odb, CollectLimits::default(), None);
    assert!(matches!(walk.failed(rustix::io::Errno::ACCESS), CollectError::Unreadable { .. }));

    let file = fs::File::options().append(true).open(b.path("a.txt")).unwrap();
    let before = rustix::fs::fstat(&file).unwrap();
    assert!(!super::file::drifted(&before, &rustix::fs::fstat(&file).unwrap()));
    std::io::Write::write_all(&mut &file, b"more").unwrap();
    assert!(super::file::drifted(&before, &rustix::fs::fstat(&file).unwrap()));
}

#[test]
fn budgets_hold() {
    let b = Bench::new();
    let limits = CollectLimits { entries: 20, depth: 3, file_bytes: 100, total_bytes: 150 };
    let collect = || b.mirror.collect(&b.ws, &limits);
    // Apparent size counts: a sparse file of eight exbibytes is never read.
    let sparse = fs::File::create(b.path("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(matches!(collect(), Err(CollectError::TooLarge { limit: 100, .. })));
    fs::write(b.path("sparse"), [7; 100]).unwrap();
    collect().unwrap();
    fs::write(b.path("second"), [8; 100]).unwrap();
    assert!(matches!(collect(), Err(CollectError::TooLarge { limit: 150, .. })));
    fs::remove_file(b.path("second")).unwrap();
    fs::create_dir_all(b.path("1/2/3/4")).unwrap();
    assert!(matches!(collect(), Err(CollectError::TooComplex { unit: "levels", .. })));
    fs::remove_dir_all(b.path("1")).unwrap();
    for n in 0..20 {
        fs::write(b.path(&format!("n{n}")), "").unwrap();
    }
    assert!(matches!(collect(), Err(CollectError::TooComplex { unit: "entries", .. })));
}

#[test]
fn a_large_file_of_the_base_may_stay_and_not_change() {
    let f = Fixture::new();
    let text = "x".repeat(300);
    let base = f.commit(&[(0o100_644, "large", text.as_str())]);
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 1), base).unwrap();
    let limits = CollectLimits { file_bytes: 100, ..CollectLimits::default() };
    assert_eq!(mirror.collect(&ws, &limits).unwrap().changed, []);
    fs::write(ws.path().join("large"), "y".repeat(300)).unwrap();
    assert!(matches!(mirror.collect(&ws, &limits), Err(CollectError::TooLarge { .. })));
}

#[test]
fn an_emptied_workspace_is_the_empty_tree() {
    let b = Bench::new();
    for entry in fs::read_dir(b.ws.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    let collected = b.collect().unwrap();
    assert_eq!(collected.result_tree.to_string(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
    assert_eq!(collected.changed.len(), BASE.len());
}
