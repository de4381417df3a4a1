//! Repositories that are not as one would wish. A run works on a commit in a worktree of its own, so most of them are
//! no obstacle; in every case the user's checkout stays as it is, by every byte.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::reason;
use crate::disk_full::in_a_namespace;
use crate::harness::{Bench, Ran, SITE};
use crate::kill::photo::Photo;

const RUN: &[&str] = &["autopilot", "run", "--enable", "--no-wait", "--run-id", "k"];

/// Git in the repository.
fn git(bench: &Bench, args: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always"];
    let output = Command::new("git").current_dir(bench.repo()).args(identity).args(args).output().unwrap();
    // A merge that conflicts ends with 1, and is what the caller wants.
    assert!(output.status.success() || args[0] == "merge", "{args:?}: {output:?}");
}

/// Runs, and looks that nothing of the user's changed.
fn untouched(bench: &Bench, args: &[&str]) -> Ran {
    let before = Photo::of(&bench.repo());
    let ran = bench.run(args);
    before.is_unchanged(&bench.repo());
    ran
}

/// The change that needs nobody is applied on the run's branch, and the other one waits.
fn works_on(bench: &Bench) {
    let ran = untouched(bench, RUN).expect(4);
    assert!(ran.stderr.contains("p01-doc-drift applied"), "{ran:?}");
    bench.run(&["audit", "verify"]).expect(0);
    git(bench, &["fsck", "--no-dangling"]);
}

#[test]
fn a_detached_head_is_worked_on() {
    let bench = Bench::with(SITE);
    git(&bench, &["checkout", "-q", "--detach"]);
    works_on(&bench);
}

#[test]
fn a_shallow_clone_is_worked_on_to_the_end() {
    let bench = Bench::with(SITE);
    bench.write("docs/guide.md", "# Guide\n\nA page of its own, and more.\n");
    bench.commit("two");
    let (whole, url) = (bench.path().join("whole"), format!("file://{}/whole", bench.path().display()));
    fs::rename(bench.repo(), whole).unwrap();
    fs::create_dir(bench.repo()).unwrap();
    git(&bench, &["clone", "-q", "--depth", "1", &url, "."]);
    works_on(&bench);
}

#[test]
fn a_merge_that_is_under_way_is_left_to_its_person() {
    let bench = Bench::with(SITE);
    git(&bench, &["checkout", "-q", "-b", "other"]);
    bench.write("README.md", "# Other\n");
    bench.commit("theirs");
    git(&bench, &["checkout", "-q", "main"]);
    bench.write("README.md", "# Ours\n");
    bench.commit("ours");
    git(&bench, &["merge", "other"]);
    assert!(bench.repo().join(".git/MERGE_HEAD").exists());
    // Nothing is done unasked while git itself is in the middle of something.
    let ran = untouched(&bench, RUN).expect(4);
    assert!(ran.stdout.contains("repository_in_doubt") && !ran.stderr.contains("applied"), "{ran:?}");
    bench.run(&["audit", "verify"]).expect(0);
}

#[test]
fn files_that_are_not_committed_are_not_worked_on() {
    let bench = Bench::with(SITE);
    bench.write("examples/page.md", "# Page\n\nSee [it](other.md). Not yet done.\n");
    bench.write("NOTES-old.md", "# Old notes\n\nNot yet done.\n");
    let ran = untouched(&bench, RUN).expect(5);
    assert!(ran.stderr.contains("commit them first") && ran.stderr.contains("next: "), "{ran:?}");
}

#[test]
fn submodules_are_left_alone() {
    let bench = Bench::with(SITE);
    let inner = Bench::with(&[("a.md", "# A\n\nSee [it](nowhere.md).\n")]);
    git(&bench, &["submodule", "add", "-q", inner.repo().to_str().unwrap(), "examples/inner"]);
    bench.commit("with a submodule");
    works_on(&bench);
}

#[test]
fn names_that_are_no_text_are_no_obstacle() {
    let bench = Bench::with(SITE);
    fs::write(bench.repo().join("examples").join(OsStr::from_bytes(b"b\xFF\xFE.md")), "x\n").unwrap();
    bench.commit("a name in no encoding");
    works_on(&bench);
}

#[test]
fn a_file_of_a_hundred_megabytes_is_no_obstacle() {
    let bench = Bench::with(SITE);
    let file = fs::File::create(bench.repo().join("examples/big.bin")).unwrap();
    file.set_len(100 << 20).unwrap();
    bench.commit("big");
    works_on(&bench);
}

#[test]
fn a_read_only_repository_is_refused_by_name() {
    in_a_namespace("bad_input::repositories::a_read_only_repository_is_refused_by_name", || {
        let bench = Bench::with(SITE);
        let repo = bench.repo();
        let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
        mount(&["--bind", repo.to_str().unwrap(), repo.to_str().unwrap()]);
        mount(&["-o", "remount,bind,ro", repo.to_str().unwrap()]);
        bench.run(&["gaps", "scan"]).expect(0);
        let data = bench.path().join("data");
        let elsewhere = [&["--data-dir", data.to_str().unwrap()], RUN].concat();
        let tried = [bench.run(RUN), bench.run(&elsewhere)];
        for ran in &tried {
            assert!(ran.stderr.contains("\n  because: ") && ran.stderr.contains("\n  do this: "), "{ran:?}");
            assert_eq!((ran.code, reason(ran)), (7, "read_only"), "{ran:?}");
        }
        assert!(Command::new("umount").arg(repo).status().unwrap().success());
    });
}

/// The binary as the files' owner whom their bits bind; root they do not, so it becomes somebody else.
fn as_their_owner(bench: &Bench, args: &[&str]) -> Ran {
    if !nix::unistd::geteuid().is_root() {
        return bench.run(args);
    }
    let nobody = 65_534;
    for entry in walkdir::WalkDir::new(bench.path()) {
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(nobody), Some(nobody)).unwrap();
    }
    // Where the tests are built may be closed to others.
    let program = bench.path().join("autopack");
    let built = env!("CARGO_BIN_EXE_autopack");
    if !program.exists() {
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
    }
    bench.finish(bench.command_of(&program, &bench.repo()).args(args).uid(nobody).gid(nobody))
}

#[test]
fn what_its_owner_may_not_write_is_refused_by_name() {
    let bench = Bench::with(SITE);
    let (repo, data) = (bench.repo(), bench.path().join("data"));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let elsewhere = [&["--data-dir", data.to_str().unwrap()], RUN].concat();
    let tries: [(&Path, &[&str], &str); 3] = [
        (&repo, RUN, "make the data directory writable"),
        (&bench.path().join("home"), RUN, "make it writable for this user"),
        (&repo.join(".git/refs"), &elsewhere, "make the repository writable for this user"),
    ];
    for (closed, args, remedy) in tries {
        mode(closed, 0o555);
        let ran = as_their_owner(&bench, args);
        mode(closed, 0o755);
        assert_eq!((ran.code, reason(&ran)), (7, "read_only"), "{closed:?}: {ran:?}");
        assert!(ran.stderr.contains(&format!("do this: {remedy}")), "{closed:?}: {ran:?}");
    }
    assert_eq!(as_their_owner(&bench, RUN).code, 4);
}

#[test]
fn a_data_directory_has_one_owner() {
    let bench = Bench::with(SITE);
    let mut first = bench.command(&bench.repo()).arg("up").stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap().contains("socket")));
    let second = bench.run(&["up"]).expect(75);
    assert_eq!(reason(&second), "data_dir_locked");
    assert!(second.stderr.contains(&format!("pid {}", first.id())) && second.stderr.contains("\n  do this: "));
    // Every other command attaches to the first.
    bench.run(&["runs", "list"]).expect(0);
    first.kill().unwrap();
    first.wait().unwrap();
    bench.run(&["runs", "list"]).expect(0);
}
