//! How much of the disk one sandbox takes up. File systems of workers mostly have no quotas, so it is looked at from
//! outside, often where much is written and seldom where nothing is; what takes more than it may is ended, and what
//! fills up the worker's disk is ended before that is full.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, statat, statvfs};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two looks at the free space, which cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// After so long everything is counted, whatever the free space says.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Folders in folders, at most.
const DEEPEST: usize = 128;

/// Free space below which whoever writes much is ended: so many bytes, or a fiftieth of the disk where that is less.
const RESERVE: u64 = 512 << 20;

/// What could not be counted.
const UNKNOWN: Used = Used { bytes: u64::MAX, files: u64::MAX };

/// What is not yet much.
const LITTLE: Used = Used { bytes: 16 << 20, files: 10_000 };

/// Bytes and files, of a tree or of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Bytes on the disk.
    pub(super) bytes: u64,
    /// Files, folders included.
    pub(super) files: u64,
}

impl Used {
    /// Whether it is more than that in one of the two.
    const fn exceeds(self, other: Self) -> bool {
        self.bytes > other.bytes || self.files > other.files
    }

    const fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), files: self.files.saturating_sub(other.files) }
    }

    const fn twice(self) -> Self {
        Self { bytes: self.bytes.saturating_mul(2), files: self.files.saturating_mul(2) }
    }
}

/// What can be written, and by whom.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Folders; the first one's disk is the one that is looked at.
    pub(super) places: Vec<PathBuf>,
    /// The file that lists the processes: what they hold open may have no name any more.
    pub(super) processes: Option<PathBuf>,
    /// How much it may be.
    pub(super) most: Used,
}

/// One sandbox that is watched, as long as this is held.
#[derive(Debug)]
pub(super) struct Quota {
    over: watch::Receiver<Option<String>>,
    _watcher: JoinSet<()>,
}

impl Quota {
    /// Watches from now on.
    pub(super) fn watch(what: Watched) -> Self {
        let (say, over) = watch::channel(None);
        let mut watcher = JoinSet::new();
        watcher.spawn(look(what, say));
        Self { over, _watcher: watcher }
    }

    /// Completes when it is more than it may be, with why.
    pub(super) async fn over(&self) -> String {
        let mut over = self.over.clone();
        let why = over.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
        match why {
            Ok(why) => why,
            Err(_) => std::future::pending().await,
        }
    }
}

/// The free space of a disk, and whether that is scarce.
#[derive(Debug, Clone, Copy)]
struct Space {
    free: Used,
    scarce: bool,
}

fn space(place: &Path) -> Option<Space> {
    let disk = statvfs(place).ok()?;
    let (bytes, total) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
    // Some file systems make inodes as they need them, and count none.
    let files = if disk.f_files == 0 { u64::MAX } else { disk.f_favail };
    let scarce = bytes < RESERVE.min(total / 50) || files < (disk.f_files / 50).min(LITTLE.files);
    Some(Space { free: Used { bytes, files }, scarce })
}

async fn look(what: Watched, say: watch::Sender<Option<String>>) {
    let Some(disk) = what.places.first().cloned() else { return };
    let (mut first, mut last): (Option<Used>, Used) = (None, Used::default());
    let mut then = space(&disk);
    let (mut counted, mut not_before) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = space(&disk);
        let written = then.zip(now).map(|(then, now)| then.free.minus(now.free)).unwrap_or_default();
        let scarce = now.is_some_and(|now| now.scarce);
        // Others write too: half of what is left is soon enough to count, and no sooner.
        let much = written.twice().exceeds(what.most.minus(last));
        // Counting takes a fifth of the time at most, but where the disk is about to be full.
        let due = (much || counted.elapsed() >= COUNT_EVERY) && Instant::now() >= not_before;
        if !due && !scarce {
            continue;
        }
        let (began, task) = (Instant::now(), what.clone());
        // A count that panicked cannot vouch for anything.
        let used = tokio::task::spawn_blocking(move || count(&task)).await.unwrap_or(UNKNOWN);
        (counted, not_before) = (Instant::now(), Instant::now() + began.elapsed() * 4);
        let grown = used.minus(*first.get_or_insert(before(used, written)));
        if let Some(why) = verdict(used, what.most, scarce && grown.exceeds(LITTLE)) {
            say.send_replace(Some(why));
            return;
        }
        (last, then) = (used, now);
    }
}

/// What there was when the watch began, by the first count: what went off the free space since is taken as written here.
const fn before(used: Used, written: Used) -> Used {
    used.minus(written)
}

/// Why it has to end.
fn verdict(used: Used, most: Used, fills_up: bool) -> Option<String> {
    if used.bytes > most.bytes {
        Some(format!("it took up more than {} MiB of the disk", most.bytes >> 20))
    } else if used.files > most.files {
        Some(format!("it made more than {} files", most.files))
    } else if fills_up {
        Some("it filled up the worker's disk".to_owned())
    } else {
        None
    }
}

/// Counts everything; no further than until it is more than it may be.
fn count(what: &Watched) -> Used {
    let mut counter = Counter { used: Used::default(), most: what.most, twice: HashSet::new() };
    let mut devices = HashSet::new();
    for place in &what.places {
        devices.extend(std::fs::metadata(place).map(|of| of.dev()).ok());
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // What is gone takes up nothing.
        if let Ok(folder) = openat(CWD, place, flags, Mode::empty()) {
            let _gone = counter.folder(folder, 0);
        }
    }
    let listed = what.processes.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    for pid in listed.lines() {
        let Ok(held) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for of in held.flatten().filter_map(|entry| std::fs::metadata(entry.path()).ok()) {
            if of.nlink() == 0 && devices.contains(&of.dev()) {
                counter.add((of.dev(), of.ino()), 2, of.blocks());
            }
        }
    }
    counter.used
}

struct Counter {
    used: Used,
    most: Used,
    /// What may be met again under another name.
    twice: HashSet<(u64, u64)>,
}

impl Counter {
    fn add(&mut self, which: (u64, u64), links: u64, blocks: u64) {
        if links < 2 || self.twice.insert(which) {
            self.used.bytes = self.used.bytes.saturating_add(blocks.saturating_mul(512));
        }
        self.used.files = self.used.files.saturating_add(1);
    }

    /// Whoever writes here may change it at any moment: no link is followed, and what goes away is nothing.
    fn folder(&mut self, folder: OwnedFd, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            // Nobody needs that: it counts as too many files.
            self.used.files = u64::MAX;
            return Ok(());
        }
        let mut entries = Dir::read_from(&folder)?;
        while let Some(Ok(entry)) = entries.next() {
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if self.used.exceeds(self.most) {
                return Ok(());
            }
            let Ok(of) = statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_folder = rustix::fs::FileType::from_raw_mode(of.st_mode).is_dir();
            let links = if is_folder { 1 } else { of.st_nlink };
            self.add((of.st_dev, of.st_ino), links, of.st_blocks.unsigned_abs());
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            if is_folder && let Ok(inner) = openat(&folder, entry.file_name(), flags, Mode::empty()) {
                let _gone = self.folder(inner, depth + 1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Used = Used { bytes: 1 << 20, files: 100 };

    fn watched(place: &Path) -> Watched {
        Watched { places: vec![place.to_owned()], processes: None, most: MOST }
    }

    #[test]
    fn what_is_on_the_disk_is_counted_once_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("big"), vec![1u8; 512 << 10]).unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        std::fs::write(tree.join("sub/one"), vec![1u8; 64 << 10]).unwrap();
        std::fs::hard_link(tree.join("sub/one"), tree.join("two")).unwrap();
        std::os::unix::fs::symlink(outside.path(), tree.join("out")).unwrap();
        let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let used = count(&watched(&tree));
        assert_eq!(used.files, 5, "{used:?}");
        assert!((64 << 10..128 << 10).contains(&used.bytes), "{used:?}");
    }

    #[test]
    fn what_has_no_name_any_more_is_counted_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("gone")).unwrap();
        std::fs::write(dir.path().join("gone"), vec![1u8; 256 << 10]).unwrap();
        std::fs::remove_file(dir.path().join("gone")).unwrap();
        let list = dir.path().parent().unwrap().join(format!("procs-{}", std::process::id()));
        std::fs::write(&list, format!("{}\n", std::process::id())).unwrap();
        let used = count(&Watched { processes: Some(list.clone()), ..watched(dir.path()) });
        std::fs::remove_file(list).unwrap();
        assert!(used.bytes >= 256 << 10, "{used:?}");
        drop(file);
    }

    #[test]
    fn a_folder_without_a_bottom_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/".repeat(DEEPEST + 2))).unwrap();
        let many = Used { files: 10_000, ..MOST };
        let used = count(&Watched { most: many, ..watched(dir.path()) });
        assert!(verdict(used, many, false).is_some(), "{used:?}");
        // An open file that has no name any more is counted on top of that.
        let gone = std::fs::File::create(dir.path().join("gone")).unwrap();
        std::fs::remove_file(dir.path().join("gone")).unwrap();
        let list = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(list.path(), format!("{}\n", std::process::id())).unwrap();
        let processes = Some(list.path().to_owned());
        let used = count(&Watched { processes, most: many, ..watched(dir.path()) });
        assert!(verdict(used, many, false).is_some(), "{used:?}");
        drop(gone);
    }

    #[test]
    fn what_was_written_before_the_first_count_was_not_there_before() {
        let (used, written) = (Used { bytes: 12 << 30, files: 3 }, Used { bytes: 12 << 30, files: 3 });
        let grown = used.minus(before(used, written));
        assert!(grown.exceeds(LITTLE), "a disk that was filled at once ends who did it: {grown:?}");
        let idle = used.minus(before(used, Used::default()));
        assert!(!idle.exceeds(LITTLE), "who wrote nothing is not ended: {idle:?}");
    }

    #[test]
    fn what_is_too_much_has_a_reason() {
        let used = |bytes, files| Used { bytes, files };
        assert_eq!(verdict(used(1 << 20, 100), MOST, false), None);
        assert!(verdict(used((1 << 20) + 1, 1), MOST, false).unwrap().contains("1 MiB"));
        assert!(verdict(used(1, 101), MOST, false).unwrap().contains("100 files"));
        assert!(verdict(used(1, 1), MOST, true).unwrap().contains("disk"));
    }
}
