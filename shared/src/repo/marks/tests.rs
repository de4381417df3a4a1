//! Builders that change a file and try not to let it show.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, lstat, renameat_with};

use super::super::collect::CollectLimits;
use super::super::mirror::tests::{Fixture, key};
use super::super::mirror::{Mirror, Workspace};
use super::*;

const FILES: &[(u32, &str, &str)] =
    &[(0o100_644, "a.txt", "aaaa\n"), (0o100_644, "b.txt", "bbbb\n"), (0o100_644, "d/c.txt", "cccc\n")];

/// Longer than any file system's clock ticks.
const TICK: Duration = Duration::from_millis(30);

struct Bench {
    _f: Fixture,
    mirror: Mirror,
    ws: Workspace,
}

impl Bench {
    fn new() -> Self {
        let f = Fixture::new();
        let commit = f.commit(FILES);
        let mirror = f.mirror();
        let prepared = mirror.prepare(commit, u64::MAX, &|| true).unwrap();
        std::thread::sleep(TICK);
        let ws = mirror.create_from(&key("r", 1), commit, prepared).unwrap();
        Self { _f: f, mirror, ws }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.ws.path().join(name)
    }

    fn changed(&self) -> Vec<String> {
        let found = self.mirror.collect(&self.ws, &CollectLimits::default()).unwrap();
        found.changed.iter().map(|change| String::from_utf8_lossy(&change.path).into_owned()).collect()
    }

    fn untouched(&self, name: &str) -> Option<bool> {
        let stat = lstat(self.path(name)).unwrap();
        self.ws.marks().believed().map(|believed| believed.untouched(name.as_bytes(), &stat).is_some())
    }
}

/// Whether the tests' file system is one that is believed at all.
fn keeps_time(path: &Path) -> bool {
    Marks::begin(File::open(path).unwrap().as_fd()).keeps_time
}

#[test]
fn a_file_that_was_left_alone_is_believed_and_no_other() {
    let b = Bench::new();
    fs::write(b.path("a.txt"), "AAAA\n").unwrap();
    if keeps_time(b.ws.path()) {
        assert_eq!((b.untouched("a.txt"), b.untouched("b.txt")), (Some(false), Some(true)));
    }
    assert_eq!(b.changed(), ["a.txt"]);
    b.ws.marks().doubt_clock();
    assert_eq!(b.untouched("b.txt"), None, "the clock was set: nothing is believed");
    assert_eq!(b.changed(), ["a.txt"]);
}

#[test]
fn a_time_that_is_put_back_hides_nothing() {
    let b = Bench::new();
    let path = b.path("a.txt");
    let was = fs::metadata(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_at(b"evil", 0).unwrap();
    file.set_modified(was.modified().unwrap()).unwrap();
    let now = fs::metadata(&path).unwrap();
    assert_eq!((now.mtime_nsec(), now.len(), now.ino()), (was.mtime_nsec(), was.len(), was.ino()));
    assert_eq!(b.changed(), ["a.txt"]);
}

#[test]
fn another_name_for_a_file_hides_nothing() {
    let b = Bench::new();
    let other = b.ws.path().parent().unwrap().join("other-name");
    fs::hard_link(b.path("a.txt"), &other).unwrap();
    File::options().write(true).open(&other).unwrap().write_at(b"evil", 0).unwrap();
    fs::remove_file(other).unwrap();
    assert_eq!(b.changed(), ["a.txt"]);
}

#[test]
fn files_and_folders_that_change_places_are_seen() {
    let b = Bench::new();
    let exchange = |one: &Path, other: &Path| renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    exchange(&b.path("a.txt"), &b.path("b.txt"));
    assert_eq!(b.changed(), ["a.txt", "b.txt"]);
    exchange(&b.path("a.txt"), &b.path("b.txt"));
    assert_eq!(b.changed(), [""; 0]);
    // A folder in its place holds a file of the same name, size and times.
    fs::create_dir(b.path("e")).unwrap();
    fs::write(b.path("e/c.txt"), "evil\n").unwrap();
    exchange(&b.path("d"), &b.path("e"));
    assert_eq!(b.changed(), ["d/c.txt", "e/c.txt"]);
}

#[test]
fn a_change_right_at_the_end_of_writing_is_read() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mirror = f.mirror();
    for round in 0..20 {
        let ws = mirror.create(&key("r", round), commit).unwrap();
        // As soon as can be, with the same size and times.
        let file = File::options().write(true).open(ws.path().join("a.txt")).unwrap();
        let was = file.metadata().unwrap().modified().unwrap();
        file.write_at(b"evil", 0).unwrap();
        file.set_modified(was).unwrap();
        let found = mirror.collect(&ws, &CollectLimits::default()).unwrap();
        assert_eq!(found.changed.len(), 1, "round {round}");
    }
}

#[test]
fn a_file_system_that_does_not_tell_is_not_believed() {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        assert!(!keeps_time(memory), "a mapping writes without a time there");
    }
}
