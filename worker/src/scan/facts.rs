//! Gathers what detectors look at: state and listing of the repository on one side, the bytes of its text files on
//! the other, at the same time.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use autopack_shared::domain::gap::Gap;
use autopack_shared::domain::ids::Digest;
use autopack_shared::repo::status::{Change, Checkout, StatusError, SubmoduleHead, Tracked, TrackedKind, WorkTree};

use super::beneath::Beneath;
use super::content::{Content, Reader};
use super::detector::DetectorError;
use super::listing::{Entry, Listing, escape};
use super::mentions::Mentions;
use super::{ScanError, ScanLimits, ScanOptions, names};

/// Everything known of the tree. What could not be learned is kept as the reason: the detectors that need it fail.
pub(super) struct Facts<'a> {
    pub(super) options: &'a ScanOptions,
    pub(super) tree: Beneath,
    pub(super) checkout: Checkout,
    pub(super) submodules: Vec<SubmoduleHead>,
    pub(super) changes: Result<Vec<Change>, String>,
    pub(super) listing: Result<Listing, String>,
    pub(super) problems: Result<Vec<String>, String>,
    pub(super) digest: Result<Digest, String>,
    /// Of text files, by name.
    pub(super) contents: BTreeMap<String, Content>,
    /// Text files that could not be read.
    pub(super) unreadable: BTreeMap<String, String>,
    pub(super) mentions: Mentions,
    /// With `--since`, the names that changed.
    pub(super) since: Option<BTreeSet<String>>,
    uncommitted: BTreeSet<String>,
}

/// Gathers the facts of the tree at `root`.
pub(super) fn gather<'a>(root: &Path, options: &'a ScanOptions) -> Result<Facts<'a>, ScanError> {
    let mut work = WorkTree::open(root)?;
    let tree = Beneath::open(work.root()).map_err(ScanError::Root)?;
    let since = (options.since).map(|commit| work.changed_since(commit)).transpose()?;
    let tracked = work.tracked().map_err(|e| told(&e));
    let known = tracked.as_deref().unwrap_or_default();
    let mentions = Mentions::new(clutter(known));
    let (changes, problems, read) = thread::scope(|scope| {
        // The one that has read the index already goes where it is needed most.
        let (at, ours) = (work.root().to_owned(), &mut work);
        let changes = scope.spawn(move || ours.changes());
        let index = tracked.as_deref().ok();
        let problems = scope.spawn(move || integrity(&at, index, options.deep));
        let read = read_all(&tree, &mentions, options.limits, &text_files(known));
        (joined(changes.join()), joined(problems.join()), read)
    });
    let submodules = work.submodules(known);
    let both = match (&tracked, &changes) {
        (Ok(tracked), Ok(changes)) => Ok((tracked, changes)),
        (Err(e), _) | (_, Err(e)) => Err(e.clone()),
    };
    let listing = both.clone().map(|(tracked, changes)| Listing::new(tracked, changes));
    let digest = both.and_then(|(tracked, changes)| work.digest(tracked, changes, &submodules).map_err(|e| told(&e)));
    let mut texts = Texts::default();
    texts.take(read);
    if let (Ok(listing), Ok(changes)) = (&listing, &changes) {
        let fresh = texts.catch_up(listing, changes);
        texts.take(read_all(&tree, &mentions, options.limits, &fresh));
    }
    let changed = changes.iter().flatten();
    let uncommitted: BTreeSet<String> = changed.map(|c| escape(&c.path)).collect();
    let since = since.map(|paths| {
        let committed = paths.iter().map(|path| escape(path));
        committed.chain(uncommitted.iter().cloned()).collect()
    });
    let checkout = work.checkout();
    Ok(Facts {
        options,
        tree,
        checkout,
        submodules,
        changes,
        listing,
        problems,
        digest,
        contents: texts.contents,
        unreadable: texts.unreadable,
        mentions,
        since,
        uncommitted,
    })
}

/// The tracked files that are expected to be text.
fn text_files(tracked: &[Tracked]) -> Vec<Entry> {
    let files = tracked.iter().filter(|t| t.kind == TrackedKind::File);
    let mut files: Vec<Entry> = files.map(|t| Entry::new(&t.path, true)).filter(|e| names::is_text(&e.name)).collect();
    // The sides of a conflict are one file.
    files.dedup();
    files
}

/// The names of tracked clutter.
fn clutter(tracked: &[Tracked]) -> Vec<String> {
    let names = tracked.iter().filter_map(|t| std::str::from_utf8(&t.path).ok());
    names.filter(|name| names::is_clutter(name)).map(str::to_owned).collect()
}

type Read = Vec<(String, io::Result<Content>)>;

/// What text files hold, and why some could not be read.
#[derive(Default)]
struct Texts {
    contents: BTreeMap<String, Content>,
    unreadable: BTreeMap<String, String>,
}

impl Texts {
    fn take(&mut self, read: Read) {
        let mut fine = Vec::with_capacity(read.len());
        for (name, result) in read {
            match result {
                Ok(content) => fine.push((name, content)),
                Err(e) if is_no_file(&e) => {}
                Err(e) => {
                    self.unreadable.insert(name, e.to_string());
                }
            }
        }
        if self.contents.is_empty() {
            // Sorted once, where inserting would search for each place.
            self.contents = fine.into_iter().collect();
        } else {
            self.contents.extend(fine);
        }
    }

    /// Drops what is gone and names what is still to be read. What the index lists was read already, so only what
    /// differs from it can be either.
    fn catch_up(&mut self, listing: &Listing, changes: &[Change]) -> Vec<Entry> {
        let differing: BTreeSet<String> = changes.iter().map(|c| escape(&c.path)).collect();
        let mut fresh = Vec::new();
        for name in &differing {
            match listing.entry(name) {
                Some(entry) if entry.regular && names::is_text(name) => {
                    if !self.contents.contains_key(name) && !self.unreadable.contains_key(name) {
                        fresh.push(entry.clone());
                    }
                }
                Some(_) => {}
                None => {
                    self.contents.remove(name);
                    self.unreadable.remove(name);
                }
            }
        }
        fresh
    }
}

/// Whether an error says that there is no regular file at all: deleted since it was listed, or a link, a pipe or
/// something below a link. There is no text to judge then.
fn is_no_file(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    let link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    link || matches!(error.kind(), InvalidInput | NotADirectory | NotFound)
}

/// References, the tree of HEAD and the index; with `deep`, every object.
fn integrity(root: &Path, index: Option<&[Tracked]>, deep: bool) -> Result<Vec<String>, StatusError> {
    let work = WorkTree::open(root)?;
    let mut problems = match index {
        Some(tracked) => work.problems_among(tracked)?,
        None => work.problems()?,
    };
    if deep {
        let known: BTreeSet<String> = problems.iter().cloned().collect();
        problems.extend(work.fsck()?.into_iter().filter(|p| !known.contains(p)));
    }
    Ok(problems)
}

/// Reads files on several threads. Each takes the next few when it is done, so one large file holds up nobody.
fn read_all(tree: &Beneath, mentions: &Mentions, limits: ScanLimits, files: &[Entry]) -> Read {
    const STEP: usize = 32;
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let wanted = if limits.threads == 0 { cores } else { limits.threads };
    let threads = wanted.clamp(1, files.len().div_ceil(STEP).clamp(1, 16));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut reader = Reader::new(tree, mentions, limits.whole_bytes);
        let mut done = Vec::new();
        loop {
            let from = next.fetch_add(STEP, Ordering::Relaxed);
            let Some(some) = files.get(from..files.len().min(from + STEP)).filter(|s| !s.is_empty()) else {
                return done;
            };
            for file in some {
                let content = catch_unwind(AssertUnwindSafe(|| reader.content(&file.name, file.path())));
                let content = content.unwrap_or_else(|panic| Err(io::Error::other(panic_text(&*panic))));
                done.push((file.name.clone(), content));
            }
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().filter_map(|t| t.join().ok()).flatten().collect()
    })
}

/// What a caught panic says.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

fn joined<T>(result: thread::Result<Result<T, StatusError>>) -> Result<T, String> {
    match result {
        Ok(done) => done.map_err(|e| told(&e)),
        Err(panic) => Err(panic_text(&*panic)),
    }
}

/// An error with what caused it.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

impl Facts<'_> {
    /// What is unusual about the checkout, for the report.
    pub(super) fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        match (&self.checkout.branch, self.checkout.head) {
            (Some(branch), _) => state.push(format!("branch:{branch}")),
            (None, Some(head)) => state.push(format!("detached_head:{head}")),
            (None, None) => state.push("head_unresolved".to_owned()),
        }
        if let (Some(head), Some(_)) = (self.checkout.head, &self.checkout.branch) {
            state.push(format!("head:{head}"));
        }
        let flags = [(self.checkout.shallow, "shallow"), (self.checkout.partial, "partial_clone")];
        state.extend(flags.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
        state.extend(self.checkout.operation.map(|name| format!("in_progress:{name}")));
        if !self.uncommitted.is_empty() {
            state.push(format!("dirty:{}", self.uncommitted.len()));
        }
        if !self.submodules.is_empty() {
            state.push(format!("submodules:{}", self.submodules.len()));
        }
        state
    }

    /// What the scan left out on purpose.
    pub(super) fn notices(&self) -> Vec<String> {
        let streamed: Vec<&str> = self.contents.iter().filter(|(_, c)| c.streamed).map(|(n, _)| n.as_str()).collect();
        let mut notices = Vec::new();
        if let Some(first) = streamed.first() {
            notices.push(format!(
                "{} file(s) above {} bytes were streamed and their links not followed, {first} among them",
                streamed.len(),
                self.options.limits.whole_bytes
            ));
        }
        if !self.submodules.is_empty() {
            notices.push(format!("{} submodule(s) were not entered", self.submodules.len()));
        }
        notices
    }

    /// Notes which files of a gap differ from HEAD: a run starts from a commit and would not see them.
    pub(super) fn mark_uncommitted(&self, gap: &mut Gap) {
        let targets = gap.safe_remediation.target_paths.iter().flatten();
        let paths: BTreeSet<&String> = gap.evidence.file_paths.iter().chain(targets).collect();
        gap.safe_remediation.uncommitted_paths =
            paths.into_iter().filter(|p| self.uncommitted.contains(*p)).cloned().collect();
    }

    /// The listing, or why a detector that needs it fails.
    pub(super) fn listing(&self) -> Result<&Listing, DetectorError> {
        self.listing.as_ref().map_err(|why| DetectorError(why.clone()))
    }

    /// Whether a path is of interest: always, unless only changes are and it has none.
    pub(super) fn concerns(&self, path: &str) -> bool {
        self.since.as_ref().is_none_or(|changed| changed.contains(path))
    }
}
