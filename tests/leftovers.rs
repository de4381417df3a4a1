//! What a killed worker left and nobody can delete: every later command works all the same, and says what it left.
//!
//! The mounts are memory, in a namespace of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk_full::in_a_namespace;
use crate::harness::{Bench, SITE};

const RUN: &[&str] = &["autopilot", "run", "--enable", "--no-wait", "--run-id"];

/// A mount, with a file in it that is not ours to delete.
struct Mount(PathBuf);

impl Mount {
    fn at(place: &Path) -> Self {
        fs::create_dir_all(place).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(place).status().unwrap();
        assert!(mounted.success());
        fs::write(place.join("theirs"), "").unwrap();
        Self(place.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A place that was moved away is found by the path that it has now; the rest goes with the namespace.
        let _gone = Command::new("umount").arg("--lazy").arg(&self.0).stderr(std::process::Stdio::null()).status();
    }
}

fn root_of(bench: &Bench) -> PathBuf {
    let state = bench.path().join("home/.local/state/autopack");
    fs::read_dir(state).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn what_cannot_be_deleted_stops_nobody() {
    in_a_namespace("leftovers::what_cannot_be_deleted_stops_nobody", || {
        let bench = Bench::with(SITE);
        bench.run(&[RUN, &["k1"]].concat()).expect(4);
        let root = root_of(&bench);
        // In the trash, in a worktree, and the worktree itself.
        let mounts = [".trash/half/tree/m", "old/1-1/tree/m", "older/1-1/tree"].map(|at| Mount::at(&root.join(at)));
        for run in ["k2", "k3"] {
            let ran = bench.run(&[RUN, &[run]].concat()).expect(4);
            assert!(!ran.stderr.contains("error["), "{ran:?}");
        }
        assert!(mounts[0].0.join("theirs").exists() && mounts[2].0.join("theirs").exists());
        assert!(!root.join("old").exists(), "its place is free, whatever became of it");
        let kept = walkdir::WalkDir::new(root.join(".trash")).into_iter().filter_map(Result::ok);
        assert_eq!(kept.filter(|entry| entry.file_name() == "theirs").count(), 2, "what is mounted is not deleted");
        for mount in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            let place = mount.split(' ').nth(4).unwrap();
            if Path::new(place).starts_with(&root) {
                assert!(Command::new("umount").arg(place).status().unwrap().success());
            }
        }
        bench.run(&[RUN, &["k4"]].concat()).expect(4);
        assert!(!root.join("older").exists() && fs::read_dir(root.join(".trash")).unwrap().next().is_none());
    });
}
