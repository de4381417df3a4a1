//! What trusted code saw of the files that it wrote, so that a later look can tell which of them nobody has touched.
//! Believed is only what a builder cannot set: the inode, and the time of its last change, which the kernel keeps. Where
//! the file system does not keep it for every write, where the clock was set in between, or where the time is too close
//! to the end of writing to tell, nothing is believed and the file is read.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, Stat, fstat, fstatfs, openat};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::tree::Leaf;

/// File systems on which every way to change bytes moves the time of change: ext2 to ext4, and btrfs. A tmpfs is none:
/// bytes that are written through a mapping leave no time there. Overlays, networks and what is not known are none.
const KEEP_TIME: [i64; 2] = [0xEF53, 0x9123_683E];

/// Files that are remembered of one tree; larger ones are read whole.
const MOST: usize = 500_000;

/// A moment that no worktree lives to see, in seconds since 1970.
const NEVER: i64 = 7_258_118_400;

/// The time of change of a file that was made at some moment. None: the file system cannot make one without a name, there
/// is no moment to go by, and nothing is believed.
#[derive(Debug, Clone, Copy)]
pub(in crate::repo) struct Moment(Option<(i64, i64)>);

impl Moment {
    /// Now, by the clock of the file system that a folder is on.
    pub(in crate::repo) fn now(dir: BorrowedFd<'_>) -> io::Result<Self> {
        let probe = openat(dir, c".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o600));
        match probe {
            Ok(probe) => Ok(Self(Some(Look::of(&fstat(&probe)?).changed))),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => Ok(Self(None)),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is seen of a file from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    dev: u64,
    ino: u64,
    mode: u32,
    links: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    fn of(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            #[allow(clippy::useless_conversion, reason = "it is another type on other machines")]
            links: u64::from(stat.st_nlink),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// Notices that the clock of the machine was set: after that a new time of change may look like an old one.
#[derive(Debug)]
struct ClockWatch {
    timer: OwnedFd,
    was_set: AtomicBool,
}

impl ClockWatch {
    fn start() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let never = Itimerspec { it_interval: none, it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 } };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
        Ok(Self { timer, was_set: AtomicBool::new(false) })
    }

    /// Whether the clock only went on by itself until now. What was once seen is remembered: the system tells it once.
    fn steady(&self) -> bool {
        let mut buffer = [0; 8];
        if !matches!(rustix::io::read(&self.timer, &mut buffer), Err(Errno::AGAIN)) {
            self.was_set.store(true, Ordering::SeqCst);
        }
        !self.was_set.load(Ordering::SeqCst)
    }
}

/// The files of one tree as they were when they had just been written.
#[derive(Debug, Default)]
pub(in crate::repo) struct Marks {
    files: HashMap<Vec<u8>, (Look, Leaf)>,
    /// The moment after which a builder may have been at them.
    closed: Option<(i64, i64)>,
    /// None: the clock cannot be watched, and nothing is believed.
    clock: Option<ClockWatch>,
    keeps_time: bool,
}

/// One file that was written.
#[derive(Debug)]
pub(in crate::repo) struct Written {
    /// Its path from the root.
    pub(in crate::repo) path: Vec<u8>,
    /// What it holds.
    pub(in crate::repo) leaf: Leaf,
    look: Look,
}

impl Written {
    /// Looks at a file right after it was written.
    pub(in crate::repo) fn of(path: Vec<u8>, leaf: Leaf, stat: &Stat) -> Self {
        Self { path, leaf, look: Look::of(stat) }
    }
}

impl Marks {
    /// Begins before the first file is written in the folder.
    pub(in crate::repo) fn begin(dir: BorrowedFd<'_>) -> Self {
        let clock = ClockWatch::start();
        if let Err(error) = &clock {
            tracing::debug!(%error, "the clock cannot be watched; every file will be read");
        }
        let keeps_time = fstatfs(dir).is_ok_and(|system| {
            // The type is a number of another width on each machine.
            #[allow(clippy::unnecessary_cast, reason = "it is another type on other machines")]
            let kind = system.f_type as i64;
            KEEP_TIME.contains(&kind)
        });
        Self { files: HashMap::new(), closed: None, clock: clock.ok(), keeps_time }
    }

    /// Remembers files.
    pub(in crate::repo) fn add(&mut self, files: Vec<Written>) {
        self.files.extend(files.into_iter().map(|file| (file.path, (file.look, file.leaf))));
        if self.files.len() > MOST {
            self.keeps_time = false;
            self.files = HashMap::new();
        }
    }

    /// Forgets a path and all below it.
    pub(in crate::repo) fn forget(&mut self, path: &[u8]) {
        self.files.remove(path);
    }

    /// Ends the writing: what changes after this moment has a time that is not before it. A moment that came before a
    /// look which found everything as it was written may be later than the writing.
    pub(in crate::repo) fn close(&mut self, moment: Moment) {
        self.closed = moment.0;
    }

    /// What may be asked of them now; `None` where nothing may be believed.
    pub(in crate::repo) fn believed(&self) -> Option<Believed<'_>> {
        let steady = self.clock.as_ref().is_some_and(ClockWatch::steady);
        let closed = self.closed.filter(|_| self.keeps_time && steady)?;
        Some(Believed { files: &self.files, closed })
    }

    #[cfg(test)]
    pub(in crate::repo) fn doubt_clock(&self) {
        self.clock.as_ref().unwrap().was_set.store(true, Ordering::SeqCst);
    }
}

/// Marks that may be believed at this moment.
#[derive(Debug, Clone, Copy)]
pub(in crate::repo) struct Believed<'a> {
    files: &'a HashMap<Vec<u8>, (Look, Leaf)>,
    closed: (i64, i64),
}

impl Believed<'_> {
    /// What a file still holds, if nobody can have touched it since it was written.
    pub(in crate::repo) fn untouched(&self, path: &[u8], stat: &Stat) -> Option<Leaf> {
        let (look, leaf) = self.files.get(path)?;
        (look.changed < self.closed && *look == Look::of(stat)).then_some(*leaf)
    }
}

/// The file system's own view of a folder's device and inode, for telling a folder from another.
pub(in crate::repo) fn same_folder(one: impl AsFd, other: impl AsFd) -> bool {
    let id = |fd: BorrowedFd<'_>| fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    id(one.as_fd()).is_some_and(|one| id(other.as_fd()) == Some(one))
}

#[cfg(test)]
mod tests;
