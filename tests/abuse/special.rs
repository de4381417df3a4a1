//! What is no file, what is too much, and what does not hold still. T031, T034, T041, T042.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::time::Instant;

use autopack_shared::repo::collect::{CollectError, CollectLimits, SkippedKind};

use super::{Attack, Ends, said, stops};

/// T042: pipes, sockets and devices are left out, told, and never waited for.
#[test]
fn t042_what_is_no_file_is_left_out() {
    let a = Attack::new();
    mknodat(CWD, a.at("examples/pipe"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let _socket = UnixListener::bind(a.at("examples/socket")).unwrap();
    let device = mknodat(CWD, a.at("examples/zero"), FileType::CharacterDevice, Mode::from_raw_mode(0o644), 0x105);
    // A pipe in place of a file that was there.
    fs::remove_file(a.at("examples/a.txt")).unwrap();
    mknodat(CWD, a.at("examples/a.txt"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let began = Instant::now();
    let found = a.collect().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    let mut kinds: Vec<_> = found.skipped.iter().map(|entry| entry.kind).collect();
    // Only root makes devices.
    assert_eq!(kinds.contains(&SkippedKind::Device), device.is_ok());
    kinds.retain(|kind| *kind != SkippedKind::Device);
    assert_eq!(kinds, [SkippedKind::Fifo, SkippedKind::Fifo, SkippedKind::Socket]);
    assert_eq!(a.changed(), ["examples/a.txt"], "it is gone, and nothing is in its place");
}

/// T042 and T031: a file of holes counts as what it seems, and is not read.
#[test]
fn t031_t042_holes_and_giants_are_refused_unread() {
    for size in [6_u64 << 20, 1 << 40, 1 << 43] {
        let a = Attack::new();
        let made = File::create(a.at("examples/holes")).unwrap().set_len(size);
        if made.is_err() {
            continue;
        }
        let began = Instant::now();
        assert!(matches!(a.collect(), Err(CollectError::TooLarge { .. })), "{size}");
        assert!(began.elapsed() < Duration::from_secs(20), "{size}");
    }
    let a = Attack::new();
    for n in 0..12 {
        a.write(&format!("examples/part-{n}"), vec![b'x'; 5 << 20]);
    }
    assert!(matches!(a.collect(), Err(CollectError::TooLarge { limit, .. }) if limit == 50 << 20));
}

/// T031: more files than anybody can judge.
#[test]
fn t031_too_many_files_are_refused() {
    let a = Attack::new();
    for n in 0..2_001 {
        a.write(&format!("examples/many/{}/{n}", n / 500), "x\n");
    }
    assert!(stops(&a.judged(), "too_large"), "{}", said(&a.judged()));
    let few = CollectLimits { entries: 1_000, ..CollectLimits::default() };
    let found = a.mirror.collect(&a.space, &few);
    assert!(matches!(found, Err(CollectError::TooComplex { limit: 1_000, unit: "entries" })));
}

/// T034: folders in folders.
#[test]
fn t034_a_deep_tree_is_refused() {
    let a = Attack::new();
    let mut path = a.at("examples");
    for _ in 0..70 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("f"), "x\n").unwrap();
    assert!(matches!(a.collect(), Err(CollectError::TooComplex { unit: "levels", .. })));
}

/// T041: somebody still writes. Either it is seen, or what was read is one of the states that were there.
#[test]
fn t041_a_file_that_does_not_hold_still_is_not_taken_half() {
    let a = Attack::new();
    let path = a.at("examples/a.txt");
    let half = 2 << 20;
    fs::write(&path, vec![b'a'; half * 2]).unwrap();
    let done = AtomicBool::new(false);
    let mut unstable = 0;
    std::thread::scope(|scope| {
        let _ends = Ends(&done);
        scope.spawn(|| {
            let mut file = File::options().write(true).open(&path).unwrap();
            let mut letter = b'a';
            while !done.load(Ordering::Relaxed) {
                letter = if letter == b'a' { b'b' } else { b'a' };
                file.write_at(&vec![letter; half * 2], 0).unwrap();
                file.flush().unwrap();
            }
        });
        for _ in 0..20 {
            match a.collect() {
                Err(CollectError::Unstable { path }) => {
                    assert_eq!(path, "examples/a.txt");
                    unstable += 1;
                }
                Ok(_) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    assert!(unstable > 0, "it was written to all the time and nobody noticed");
}

/// What a builder made unreadable is named and not passed over; root reads it all the same.
#[test]
fn what_cannot_be_read_is_not_passed_over() {
    let a = Attack::new();
    a.write("examples/deep/new.txt", "x\n");
    fs::set_permissions(a.at("examples/deep"), fs::Permissions::from_mode(0o0)).unwrap();
    match a.collect() {
        Err(CollectError::Unreadable { path }) => assert_eq!(path, "examples/deep"),
        Ok(found) => assert_eq!(found.changed.len(), 1, "root"),
        Err(other) => panic!("{other}"),
    }
    fs::set_permissions(a.at("examples/deep"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A change that no call to write makes, on the file system of the worktree and on one in memory, which keeps no time
/// for it.
#[test]
fn bytes_written_through_a_mapping_are_seen() {
    let program = tempfile::tempdir().unwrap();
    let mapped = program.path().join("mapped");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/abuse/mapped.c");
    assert!(Command::new("cc").arg("-o").arg(&mapped).arg(source).status().expect("a C compiler is needed").success());
    let memory = Path::new("/dev/shm");
    for place in [Some(std::env::temp_dir()), memory.is_dir().then(|| memory.to_path_buf())].into_iter().flatten() {
        let a = Attack::at_place(&place, &[]);
        std::thread::sleep(Duration::from_millis(30));
        assert!(Command::new(&mapped).arg(a.at("examples/a.txt")).status().unwrap().success());
        assert_eq!(a.changed(), ["examples/a.txt"], "{}", place.display());
    }
}
