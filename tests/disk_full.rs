//! A disk that is full, in each of the three places that are written: the data directory, the worker's root and the
//! repository. The command says so and ends with 7, what is there is whole, and the same command goes on once there
//! is room.
//!
//! The small disks are memory, mounted in a namespace of the test's own: nothing outside of it changes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Bench, Ran, SITE};

/// Says to the test, started once more, that it is in a namespace.
const INSIDE: &str = "AUTOPACK_TEST_NAMESPACE";

/// Says that this machine has no namespaces and its owner knows.
const NO_MOUNTS: &str = "AUTOPACK_TEST_NO_MOUNTS";

/// How large a small disk is, in KiB.
const SIZE: u64 = 8 * 1024;

const RUN: &[&str] = &["autopilot", "run", "--enable", "--no-wait", "--run-id", "k"];
const RESUME: &[&str] = &["runs", "resume", "k", "--no-wait"];

/// Which part is on the small disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Data,
    Worker,
    Repository,
}

/// A repository with one change that applies by itself and one that asks, a part of it on a small disk.
struct Site {
    bench: Bench,
    place: Place,
    disk: PathBuf,
}

impl Drop for Site {
    fn drop(&mut self) {
        // The folder around it cannot be removed while it is mounted.
        let _gone = Command::new("umount").arg("--lazy").arg(&self.disk).status();
    }
}

impl Site {
    fn new(place: Place) -> Self {
        let bench = Bench::empty();
        let disk = if place == Place::Repository { bench.repo() } else { bench.path().join("disk") };
        fs::create_dir_all(&disk).unwrap();
        let size = format!("size={SIZE}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk).status().unwrap();
        assert!(mounted.success());
        let bench = bench.fill(SITE);
        Self { bench, place, disk }
    }

    fn data(&self) -> PathBuf {
        if self.place == Place::Data { self.disk.join("data") } else { self.bench.path().join("data") }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let state = if self.place == Place::Worker { self.disk.clone() } else { self.bench.path().join("state") };
        let data = self.data();
        let args: Vec<&str> = ["--data-dir", data.to_str().unwrap()].iter().chain(args).copied().collect();
        self.bench.run_in(&self.bench.repo(), &args, &[("XDG_STATE_HOME", state.to_str().unwrap())])
    }

    fn filler(&self) -> PathBuf {
        self.disk.join(if self.place == Place::Repository { ".git/filler" } else { "filler" })
    }

    /// Leaves so many KiB of room.
    fn leave(&self, kib: u64) {
        let mut file = File::create(self.filler()).unwrap();
        let block = [0_u8; 1024];
        while file.write_all(&block).is_ok() {}
        let full = file.metadata().unwrap().len();
        file.set_len(full.saturating_sub(kib * 1024)).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// The failure that a full disk is: three lines, its reason, its code.
    fn is_told(&self, ran: &Ran) {
        assert_eq!(ran.code, 7, "{:?}: {ran:?}", self.place);
        assert!(ran.stderr.contains("error[disk_full]: "), "{ran:?}");
        assert!(ran.stderr.contains("\n  because: ") && ran.stderr.contains("\n  do this: free some space"), "{ran:?}");
    }

    /// Nothing is half-written: git finds no fault, no lock of ours is left, and files are whole or not there.
    fn is_whole(&self) {
        let repo = self.bench.repo();
        let git = |args: &[&str]| Command::new("git").current_dir(&repo).args(args).output().unwrap();
        let checked = git(&["fsck", "--strict", "--no-dangling"]);
        assert!(checked.status.success(), "{checked:?}");
        let status = git(&["status", "--porcelain"]);
        assert_eq!(String::from_utf8_lossy(&status.stdout), "");
        for entry in walkdir::WalkDir::new(repo.join(".git/refs")) {
            assert!(entry.unwrap().path().extension().is_none_or(|end| end != "lock"));
        }
        for entry in walkdir::WalkDir::new(self.data()).into_iter().filter_map(Result::ok) {
            let name = entry.file_name().to_str().unwrap();
            if name == ".gitignore" {
                assert_eq!(fs::read_to_string(entry.path()).unwrap(), "*\n");
            }
            if Path::new(name).extension().is_some_and(|end| end == "json") {
                let _whole: serde_json::Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }

    fn approve(&self) {
        let listed = self.run(&["approvals", "list", "-o", "json"]).expect(0).json();
        let text = |key: &str| listed["requests"][0][key].as_str().unwrap().to_owned();
        let (id, digest) = (text("request_id"), text("subject_digest"));
        self.run(&["approvals", "approve", &id, "--expect-digest", &digest, "--reason", "x"]).expect(0);
    }

    /// Goes on to the end; each change is applied exactly once.
    fn ends_well(&self) {
        self.run(RUN).expect(4);
        self.approve();
        self.run(RESUME).expect(0);
        self.is_applied_once();
    }

    fn tip(&self) -> git2::Oid {
        let repo = git2::Repository::open(self.bench.repo()).unwrap();
        repo.refname_to_id("refs/heads/autopack/k").unwrap()
    }

    fn is_applied_once(&self) {
        self.run(&["audit", "verify"]).expect(0);
        let repo = git2::Repository::open(self.bench.repo()).unwrap();
        let mut walk = repo.revwalk().unwrap();
        walk.push_ref("refs/heads/autopack/k").unwrap();
        assert_eq!(walk.count(), 3);
        self.is_whole();
    }
}

/// Whether a way into a namespace with mounts of its own works here.
fn works(way: &[&str]) -> bool {
    Command::new("unshare")
        .args(way)
        .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .status()
        .is_ok_and(|s| s.success())
}

/// Starts a test once more where it can mount, and takes over how it ends.
pub(crate) fn in_a_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let Some(way) = ways.into_iter().find(|way| works(way)) else {
        let why = "no small disk can be mounted here: neither root nor user namespaces may";
        assert!(std::env::var_os(NO_MOUNTS).is_some(), "{why}; {NO_MOUNTS}=1 leaves such tests out");
        println!("not run: {why}");
        return;
    };
    let this = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(way).arg(this).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success());
}

/// Fills the disk of a place up to several amounts of room, runs, makes room, and runs again.
fn full(place: Place, rooms: &[u64]) {
    for &room in rooms {
        println!("{place:?} with {room} KiB of room");
        let site = Site::new(place);
        site.leave(room);
        site.is_told(&site.run(RUN));
        site.is_whole();
        site.make_room();
        site.ends_well();
    }
}

#[test]
fn the_data_directory_is_full() {
    in_a_namespace("disk_full::the_data_directory_is_full", || {
        // No file, no store, no submission, no event of the worker's, no upload, no apply.
        full(Place::Data, &[0, 40, 300, 600, 700, 900]);
    });
}

#[test]
fn commands_that_only_look_say_so_too() {
    in_a_namespace("disk_full::commands_that_only_look_say_so_too", || {
        let site = Site::new(Place::Data);
        // With a store to look at: one that was never made is looked at elsewhere.
        site.run(&["autopilot", "supervise", "--cleanup"]).expect(0);
        site.leave(0);
        for args in [&["runs", "list"][..], &["approvals", "list"], &["audit", "verify"]] {
            site.is_told(&site.run(args));
        }
        site.is_told(&site.run(&["gaps", "scan", "--write", "--run-id", "g"]));
        site.run(&["gaps", "scan"]).expect(0);
        site.is_whole();
        site.make_room();
        site.ends_well();
    });
}

#[test]
fn the_worker_root_is_full() {
    in_a_namespace("disk_full::the_worker_root_is_full", || {
        // No folder, no mirror, no worktree; no commit for one.
        full(Place::Worker, &[0, 4, 12, 24, 33, 60, 88]);
    });
}

#[test]
fn the_repository_is_full() {
    in_a_namespace("disk_full::the_repository_is_full", || {
        // No fence, no branch, no pack, no commit.
        full(Place::Repository, &[0, 12, 16, 32]);
    });
}

#[test]
fn an_approved_change_stays_approved_until_there_is_room() {
    in_a_namespace("disk_full::an_approved_change_stays_approved_until_there_is_room", || {
        // Not even the fence of the next engine; that one, and not the commit; the commit, and not the branch.
        for room in [0, 8, 12, 16] {
            let site = Site::new(Place::Repository);
            site.run(RUN).expect(4);
            site.approve();
            let tip = site.tip();
            site.leave(room);
            site.is_told(&site.run(RESUME));
            assert_eq!(site.tip(), tip);
            site.is_whole();
            site.make_room();
            site.run(RESUME).expect(0);
            site.is_applied_once();
        }
    });
}
