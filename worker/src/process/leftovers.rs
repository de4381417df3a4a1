//! What an earlier worker left running, found by the mark in its environment.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::LEASE_MARK;

/// Kills every process of this user whose mark begins with `mark`, the root of a worker; returns how many it found.
/// Used at the start of a worker, which holds its root alone, for what an earlier one left behind.
#[must_use]
pub fn kill_leftovers(mark: &str) -> usize {
    kill_where(|lease| lease.split('|').next() == Some(mark))
}

/// Kills every process of this user that bears this mark; returns how many it found.
pub(crate) fn kill_marked(mark: &str) -> usize {
    kill_where(|lease| lease == mark)
}

fn kill_where(fits: impl Fn(&str) -> bool) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let me = std::process::id();
    let mut killed = 0;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Some(lease) = lease_of(&entry.path()) else { continue };
        if pid != me
            && fits(&lease)
            && i32::try_from(pid).is_ok_and(|p| kill(Pid::from_raw(p), Signal::SIGKILL).is_ok())
        {
            killed += 1;
        }
    }
    killed
}

fn lease_of(proc_dir: &Path) -> Option<String> {
    let environ = std::fs::read(proc_dir.join("environ")).ok()?;
    let prefix = format!("{LEASE_MARK}=");
    environ.split(|b| *b == 0).find_map(|var| std::str::from_utf8(var).ok()?.strip_prefix(&prefix).map(str::to_owned))
}
