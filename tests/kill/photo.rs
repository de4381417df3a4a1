//! Everything that belongs to the user: each file with its bytes, mode and time, but for the few places that are
//! Autopack's (`coordination.md`, first paragraph).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

/// Folders and names, from the repository's root, that Autopack writes.
const OURS: &[&str] = &[
    ".autonomous_runs",
    ".git/refs/heads/autopack",
    ".git/refs/autopack",
    ".git/refs/tags/save-before-",
    ".git/logs/refs/heads/autopack",
    ".git/logs/refs/autopack",
    ".git/logs/refs/tags/save-before-",
];

const OBJECTS: &str = ".git/objects/";

/// What one file was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shot {
    mode: u32,
    changed: (i64, i64),
    bytes: Vec<u8>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Photo(BTreeMap<String, Shot>);

impl Photo {
    /// Takes one of a repository.
    pub(crate) fn of(repo: &Path) -> Self {
        let name = |entry: &DirEntry| entry.path().strip_prefix(repo).unwrap().to_string_lossy().into_owned();
        let theirs = |entry: &DirEntry| !OURS.iter().any(|ours| name(entry).starts_with(ours));
        let files = WalkDir::new(repo).into_iter().filter_entry(theirs).map(Result::unwrap);
        let shots = files.filter(|entry| !entry.file_type().is_dir()).map(|entry| {
            let facts = entry.metadata().unwrap();
            let bytes = fs::read(entry.path()).unwrap();
            // Git marks an object that is written once more as fresh.
            let fresh = name(&entry).starts_with(OBJECTS);
            let changed = if fresh { (0, 0) } else { (facts.mtime(), facts.mtime_nsec()) };
            (name(&entry), Shot { mode: facts.mode(), changed, bytes })
        });
        Self(shots.collect())
    }

    /// That nothing of it is gone, changed or new, but for objects that were added.
    pub(crate) fn is_unchanged(&self, repo: &Path) {
        let now = Self::of(repo);
        for (name, before) in &self.0 {
            match now.0.get(name) {
                Some(after) if after == before => {}
                Some(after) => panic!("{name} changed: {before:?} to {after:?}"),
                None => panic!("{name} is gone"),
            }
        }
        let news: Vec<&String> = now.0.keys().filter(|name| !self.0.contains_key(*name)).collect();
        let object = |name: &&&String| name.starts_with(OBJECTS);
        let strange: Vec<_> = news.iter().filter(|name| !object(name)).collect();
        assert!(strange.is_empty(), "new files: {strange:?}");
    }
}
