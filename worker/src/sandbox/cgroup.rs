//! Control groups: bounds for everything inside together, and the one way to end all of it at once. Version 2 where it
//! has the controllers, else version 1 for bounds with version 2 for the kill.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The folder of this program below the group that it is in itself.
const OURS: &str = "autopack";

/// The length of a period of processor time, in microseconds.
const PERIOD: u64 = 100_000;

/// Bounds of everything inside together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of memory, `/tmp` included.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Hundredths of one processor.
    pub cpu_percent: u64,
}

/// Where groups can be made on this host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    /// Folders of version 1 by controller.
    v1: BTreeMap<String, PathBuf>,
    /// The folder of version 2.
    v2: Option<PathBuf>,
    /// Whether version 2 has the controllers.
    v2_bounds: bool,
}

impl Groups {
    /// Finds where this process may make groups; empty where it may not.
    pub(crate) fn discover() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Self::found(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// The same, from what the kernel says of mounts and of the groups that this process is in.
    fn found(mounts: &str, own: &str) -> Self {
        let mut groups = Self::default();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                groups.v2 = place(mounts, "cgroup2", None, path);
                continue;
            }
            for controller in controllers.split(',').filter(|name| ["memory", "pids", "cpu"].contains(name)) {
                if let Some(folder) = place(mounts, "cgroup", Some(controller), path) {
                    groups.v1.insert(controller.to_owned(), folder);
                }
            }
        }
        groups.v2_bounds = groups.v2.as_deref().is_some_and(enable);
        groups
    }

    /// Whether memory and processes can be bounded for a whole tree.
    pub(crate) fn bounds(&self) -> bool {
        self.v2_bounds || (self.v1.contains_key("memory") && self.v1.contains_key("pids"))
    }

    /// A group of its own.
    ///
    /// # Errors
    /// The system's word, with the file.
    pub(crate) fn make(&self, bounds: Bounds) -> io::Result<Group> {
        // One number for all of this process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ap-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut group = Group { folders: Vec::new(), v2: None, memory: None };
        if let Some(v2) = &self.v2 {
            let folder = group.folder(v2, &name)?;
            if self.v2_bounds {
                write(&folder.join("memory.max"), &bounds.memory.to_string())?;
                // Absent where the kernel counts no swap.
                let _no_swap = write(&folder.join("memory.swap.max"), "0");
                let _one_falls_all_fall = write(&folder.join("memory.oom.group"), "1");
                write(&folder.join("pids.max"), &bounds.pids.to_string())?;
                let quota = PERIOD * bounds.cpu_percent / 100;
                let _no_controller = write(&folder.join("cpu.max"), &format!("{quota} {PERIOD}"));
                group.memory = Some(folder.join("memory.events"));
            }
            group.v2 = Some(folder);
        }
        if !self.v2_bounds {
            for (controller, base) in &self.v1 {
                let folder = group.folder(base, &name)?;
                bound_v1(controller, &folder, bounds)?;
                if controller == "memory" {
                    group.memory = Some(folder.join("memory.oom_control"));
                }
            }
        }
        Ok(group)
    }

    /// Ends what workers that are gone have left, and removes their groups.
    pub(crate) fn sweep(&self) {
        for base in self.v1.values().chain(&self.v2) {
            let Ok(entries) = fs::read_dir(base) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let owner = name.to_str().and_then(|name| name.strip_prefix("ap-")?.split('-').next());
                if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                    let group = Group { folders: vec![entry.path()], v2: Some(entry.path()), memory: None };
                    group.kill();
                    group.remove();
                }
            }
        }
    }
}

fn bound_v1(controller: &str, folder: &Path, bounds: Bounds) -> io::Result<()> {
    match controller {
        "memory" => {
            write(&folder.join("memory.limit_in_bytes"), &bounds.memory.to_string())?;
            // Absent where the kernel counts no swap.
            let _no_swap = write(&folder.join("memory.memsw.limit_in_bytes"), &bounds.memory.to_string());
            let _no_swap = write(&folder.join("memory.swappiness"), "0");
            Ok(())
        }
        "pids" => write(&folder.join("pids.max"), &bounds.pids.to_string()),
        _ => {
            write(&folder.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
            write(&folder.join("cpu.cfs_quota_us"), &(PERIOD * bounds.cpu_percent / 100).to_string())
        }
    }
}

/// Our folder below the group of this process, where it can be made.
fn place(mounts: &str, kind: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (fs_kind, options) = (right.next()?, right.nth(1)?);
        if fs_kind != kind || controller.is_some_and(|wanted| !options.split(',').any(|option| option == wanted)) {
            continue;
        }
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
        let folder = Path::new(point).join(below.trim_start_matches('/')).join(OURS);
        let made = fs::create_dir(&folder);
        let there = made.is_ok() || made.is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists);
        // A group that is not ours to fill is none.
        let probe = folder.join(format!("probe-{}", std::process::id()));
        if there && fs::create_dir(&probe).is_ok() {
            let _removed = fs::remove_dir(&probe);
            return Some(folder);
        }
    }
    None
}

/// Turns the controllers of version 2 on for our groups.
fn enable(ours: &Path) -> bool {
    let wanted = ["memory", "pids", "cpu"];
    let Some(above) = ours.parent() else { return false };
    let offered = fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
    if !wanted.iter().all(|name| offered.split_whitespace().any(|word| word == *name)) {
        return false;
    }
    let on = "+memory +pids +cpu";
    if write(&above.join("cgroup.subtree_control"), on).is_err() {
        // A group with processes of its own cannot pass controllers on: this process moves below, into a leaf.
        let leaf = ours.with_file_name(format!("{OURS}-worker"));
        let moved = (leaf.exists() || fs::create_dir(&leaf).is_ok())
            && write(&leaf.join("cgroup.procs"), &std::process::id().to_string()).is_ok();
        if !moved || write(&above.join("cgroup.subtree_control"), on).is_err() {
            return false;
        }
    }
    write(&ours.join("cgroup.subtree_control"), on).is_ok()
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    folders: Vec<PathBuf>,
    v2: Option<PathBuf>,
    memory: Option<PathBuf>,
}

impl Group {
    fn folder(&mut self, base: &Path, name: &str) -> io::Result<PathBuf> {
        let folder = base.join(name);
        fs::create_dir(&folder).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))?;
        self.folders.push(folder.clone());
        Ok(folder)
    }

    /// Takes a process in; what it starts is in it too. The kernel waits for all processors first, which may take
    /// longer than all else, so it is done off the async threads.
    ///
    /// # Errors
    /// The system's word, with the file.
    pub(crate) async fn add(&self, pid: u32) -> io::Result<()> {
        let folders = self.folders.clone();
        let added = tokio::task::spawn_blocking(move || {
            folders.iter().try_for_each(|folder| write(&folder.join("cgroup.procs"), &pid.to_string()))
        });
        added.await.map_err(io::Error::other).flatten()
    }

    /// The file that lists what is in it.
    pub(crate) fn list(&self) -> Option<PathBuf> {
        Some(self.v2.as_ref().or_else(|| self.folders.first())?.join("cgroup.procs"))
    }

    /// What is in it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let listed = self.list().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        listed.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Ends everything in it.
    pub(crate) fn kill(&self) {
        let at_once = self.v2.as_ref().is_some_and(|folder| write(&folder.join("cgroup.kill"), "1").is_ok());
        if !at_once {
            for pid in self.processes() {
                // One that is gone needs no signal.
                let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// Ends everything in it and waits until nothing is left; whether that came in time.
    pub(crate) async fn empty(&self, patience: Duration) -> bool {
        let end = tokio::time::Instant::now() + patience;
        while !self.processes().is_empty() {
            self.kill();
            if tokio::time::Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// How often the kernel ended something in it for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(file) = &self.memory else { return 0 };
        let text = fs::read_to_string(file).unwrap_or_default();
        let counted = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        counted.unwrap_or(0)
    }

    /// Removes it; one that is not empty yet is swept by the next worker.
    pub(crate) fn remove(&self) {
        for folder in &self.folders {
            if let Err(error) = fs::remove_dir(folder) {
                tracing::debug!(%error, folder = %folder.display(), "a control group is left to be swept");
            }
        }
    }
}

#[cfg(test)]
mod tests;
