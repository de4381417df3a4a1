//! Attempts to take more than there is: files, processes, memory; and to outlive the sandbox. The one on memory is the
//! last, for it may end all of it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Aims, Attempt, OUTLIVE};
use crate::sandbox::entry::PROBE;
use crate::sandbox::spec::{INIT, WS};
use crate::sys;

/// Names and attempts.
pub(super) const ATTEMPTS: &[(&str, Attempt)] = &[
    ("core_dump", core),
    ("large_file", large_file),
    ("fill_tmp", fill),
    ("many_files", many_files),
    ("outlive", outlive),
    ("fork_bomb", forks),
    ("memory", memory),
];

fn core(_: &Aims) -> Result<String, String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(|e| e.to_string())?;
    if (soft, hard) == (0, 0) { Err("no core is written".to_owned()) } else { Ok("a core may be written".to_owned()) }
}

fn large_file(aims: &Aims) -> Result<String, String> {
    // Instead of an error there would be a signal.
    let mut signal = SigSet::empty();
    signal.add(Signal::SIGXFSZ);
    signal.thread_block().map_err(|e| e.to_string())?;
    let path = Path::new(WS).join("large");
    let grown = File::create(&path).and_then(|file| file.set_len(aims.file_bytes + 1));
    let _gone = fs::remove_file(&path);
    match grown {
        Ok(()) => Ok(format!("made a file of {} bytes", aims.file_bytes + 1)),
        Err(error) => Err(error.to_string()),
    }
}

fn fill(aims: &Aims) -> Result<String, String> {
    let path = Path::new("/tmp/fill");
    let piece = vec![7u8; 1 << 20];
    let most = aims.tmp_bytes / (1 << 20) + 1;
    let filled = File::create(path).and_then(|mut file| (0..most).try_for_each(|_| file.write_all(&piece)));
    let _gone = fs::remove_file(path);
    match filled {
        Ok(()) => Ok(format!("wrote more than {} bytes", aims.tmp_bytes)),
        Err(error) => Err(error.to_string()),
    }
}

fn many_files(aims: &Aims) -> Result<String, String> {
    let folder = Path::new("/tmp/many");
    fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    let made = (0..=aims.tmp_files).try_for_each(|n| File::create(folder.join(n.to_string())).map(drop));
    let _gone = fs::remove_dir_all(folder);
    match made {
        Ok(()) => Ok(format!("made more than {} files", aims.tmp_files)),
        Err(error) => Err(error.to_string()),
    }
}

/// Leaves a process behind; whether it is still there afterwards the worker sees.
fn outlive(aims: &Aims) -> Result<String, String> {
    let left = Command::new(INIT)
        .args([PROBE, OUTLIVE, &aims.mark])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Err(left.map_or_else(|e| format!("cannot even start: {e}"), |_| "left a process behind".to_owned()))
}

fn forks(aims: &Aims) -> Result<String, String> {
    let most = aims.pids + 8;
    let (children, stopped) = family(most, || std::thread::sleep(Duration::from_secs(10)));
    end(&children);
    stopped.map_or_else(|| Ok(format!("{most} processes")), |why| Err(format!("stopped at {}: {why}", children.len())))
}

/// Several processes, none of which has too much by itself.
fn memory(aims: &Aims) -> Result<String, String> {
    let piece = usize::try_from(aims.memory / 16).map_err(|e| e.to_string())?;
    let take = || {
        let held = vec![7u8; piece];
        // Held until all have theirs.
        std::thread::sleep(Duration::from_secs(2));
        std::hint::black_box(&held);
    };
    let (children, stopped) = family(32, take);
    if let Some(why) = stopped {
        end(&children);
        return Err(why);
    }
    // All of them return by themselves where nothing stops them.
    for _ in 0..1000 {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Signaled(pid, signal @ (Signal::SIGKILL | Signal::SIGABRT), _))
                if children.contains(&pid) =>
            {
                end(&children);
                return Err(format!("{signal} ended one of them"));
            }
            // One that went through with it ends itself.
            Ok(WaitStatus::Signaled(pid, ..)) if children.contains(&pid) => break,
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(10)),
            Ok(_) | Err(_) => {}
        }
    }
    end(&children);
    Ok(format!("took {} bytes", 32 * piece))
}

/// Forks children that do something and end; and what stopped it, if anything did.
fn family(most: u64, what: impl Fn()) -> (Vec<Pid>, Option<String>) {
    let mut children = Vec::new();
    for _ in 0..most {
        match sys::fork() {
            Ok(Some(child)) => children.push(child),
            Ok(None) => {
                what();
                // Not to return into the parent's work.
                let _gone = kill(nix::unistd::getpid(), Signal::SIGTERM);
            }
            Err(error) => return (children, Some(error.to_string())),
        }
    }
    (children, None)
}

fn end(children: &[Pid]) {
    for child in children {
        let _gone = kill(*child, Signal::SIGKILL);
    }
    for child in children {
        let _reaped = waitpid(*child, None);
    }
}
