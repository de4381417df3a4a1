//! A small repository with one change that is applied by itself and one that asks, copied for each round, and what
//! must hold of it in the end.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use git2::{Commit, IndexAddOption, ObjectType, Repository, RepositoryInitOptions, Signature, Time};
use tempfile::TempDir;
use walkdir::WalkDir;

use super::photo::Photo;

/// Memory instead of a disk, where there is some: a round is a few hundred flushes.
const MEMORY: &str = "/dev/shm";

/// The change that applies by itself: a link below the write root whose file moved.
const AUTO: (&str, &str, &str) =
    ("examples/page.md", "# Page\n\nSee [it](other.md).\n", "# Page\n\nSee [it](deep/other.md).\n");
/// The change that asks: a note in the root, and where it goes.
const ASKS: (&str, &str, &str) = ("NOTES-old.md", "docs/notes/NOTES-old.md", "# Old notes\n");

const ANCHOR: &str = r#"{"format_version":"v2","project_id":"site","created_at":"2026-01-01T00:00:00Z",
"raw_input_digest":"0123456789abcdef","pivot_intentions":{"safety_risk":{"risk_tolerance":"moderate"},
"scope_boundaries":{"allowed_write_roots":["examples"]},
"governance_review":{"default_policy":"deny","auto_approve_rules":[
{"rule_id":"links","description":"links in examples","conditions":["path:examples/**"]}]}}}"#;

// Slow enough to be killed in.
const CONFIG: &str = "[policy]\nextends = \"autopack\"\n\n[[gate.commands]]\nname = \"readme\"\nrun = \"sleep 0.03 && test -f README.md\"\n";

/// A folder in memory where that can be written, else anywhere.
fn folder() -> TempDir {
    let prefix = "autopack-kill-";
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(MEMORY)
        .or_else(|_| tempfile::Builder::new().prefix(prefix).tempdir())
        .unwrap()
}

/// The repository that is copied.
pub(super) struct Template {
    dir: TempDir,
}

impl Template {
    /// Makes it.
    pub(super) fn new() -> Self {
        let dir = folder();
        let root = dir.path().join("repo");
        let repo = Repository::init_opts(&root, RepositoryInitOptions::new().initial_head("main")).unwrap();
        let files: &[(&str, &[u8])] = &[
            ("README.md", b"# Site\n\nWith [a guide](docs/guide.md).\n"),
            ("docs/guide.md", b"# Guide\n\nA page of its own.\n"),
            ("config/baseline_policy.yaml", b"version: 1\n"),
            (".autopack/anchor_v2.json", ANCHOR.as_bytes()),
            ("autopack.toml", CONFIG.as_bytes()),
            (ASKS.0, ASKS.2.as_bytes()),
            (AUTO.0, AUTO.1.as_bytes()),
            ("examples/deep/other.md", b"# Other\n\nA page of its own.\n"),
        ];
        for (path, bytes) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let mut index = repo.index().unwrap();
        index.add_all(["*"], IndexAddOption::DEFAULT, None).unwrap();
        index.write().unwrap();
        let tree = repo.find_tree(index.write_tree().unwrap()).unwrap();
        let who = Signature::new("t", "t@example.invalid", &Time::new(0, 0)).unwrap();
        repo.commit(Some("HEAD"), &who, &who, "one", &tree, &[]).unwrap();
        Self { dir }
    }
}

/// A copy with a home, and how it looked before anything happened.
pub(super) struct Site {
    dir: TempDir,
    before: Photo,
    kept: Cell<bool>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.dir.disable_cleanup(self.kept.get());
    }
}

impl Site {
    /// Copies the template.
    pub(super) fn copy(template: &Template) -> Self {
        let (from, dir) = (template.dir.path(), folder());
        for entry in WalkDir::new(from).min_depth(1) {
            let entry = entry.unwrap();
            let to = dir.path().join(entry.path().strip_prefix(from).unwrap());
            if entry.file_type().is_dir() {
                fs::create_dir(to).unwrap();
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
        fs::create_dir(dir.path().join("home")).unwrap();
        let before = Photo::of(&dir.path().join("repo"));
        Self { dir, before, kept: Cell::new(false) }
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves the folder there.
    pub(super) fn keep(&self) {
        self.kept.set(true);
    }

    /// The binary in the repository, with an empty environment.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autopack"));
        command.env_clear().env("HOME", self.home()).env("PATH", "/usr/bin:/bin").env("COLUMNS", "100");
        command.current_dir(self.repo());
        command
    }

    /// Where stdout of the last command is.
    pub(super) fn output(&self) -> PathBuf {
        self.path().join("stdout")
    }

    /// Where stderr of the last command is.
    pub(super) fn errors(&self) -> PathBuf {
        self.path().join("stderr")
    }

    /// What the last command said.
    pub(super) fn messages(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.errors()).unwrap()).into_owned()
    }

    /// The last line of it without what differs from run to run: times, ids, digests.
    pub(super) fn last_message(&self) -> String {
        let messages = self.messages();
        let Some(last) = messages.lines().last() else { return "nothing".to_owned() };
        let differs = |word: &str| {
            let word = word.trim_end_matches([':', ',', '.']);
            word.contains("req-") || (word.len() >= 8 && word.chars().all(|c| c.is_ascii_hexdigit() || c == ':'))
        };
        let words: Vec<&str> = last.split_whitespace().map(|word| if differs(word) { "~" } else { word }).collect();
        words.join(" ").trim_start_matches("~ ").to_owned()
    }

    fn repo(&self) -> PathBuf {
        self.path().join("repo")
    }

    fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// Everything that must hold in the end.
    pub(super) fn is_whole(&self) {
        self.before.is_unchanged(&self.repo());
        self.is_applied_once();
        self.has_no_locks();
        self.has_no_worktrees();
        self.has_no_leftovers();
        let audit = self.command().args(["audit", "verify"]).output().unwrap();
        assert_eq!(audit.status.code(), Some(0), "{audit:?}");
        let run = self.command().args(["runs", "show", "k", "-o", "json"]).output().unwrap();
        assert!(String::from_utf8(run.stdout).unwrap().contains("\"SUCCEEDED\""));
        self.before.is_unchanged(&self.repo());
    }

    /// One commit a phase, on top of the fork commit, and in the last one what both were to do.
    fn is_applied_once(&self) {
        let repo = Repository::open(self.repo()).unwrap();
        let tip = repo.find_reference("refs/heads/autopack/k").unwrap().peel_to_commit().unwrap();
        let mut commits: Vec<Commit<'_>> = vec![tip.clone()];
        while let Some(last) = commits.last().filter(|last| last.parent_count() > 0) {
            assert_eq!(last.parent_count(), 1);
            commits.push(last.parent(0).unwrap());
        }
        let phase =
            |commit: &Commit<'_>| commit.summary().unwrap().unwrap().split(" attempt").next().unwrap().to_owned();
        let mut phases: Vec<String> = commits.iter().map(phase).collect();
        assert_eq!(phases.pop().unwrap(), "one", "{phases:?}");
        assert_eq!(commits.last().unwrap().id(), repo.head().unwrap().target().unwrap());
        phases.sort();
        let expected = ["autopack: k/p01-doc-drift", "autopack: k/p02-root-clutter"];
        assert_eq!(phases, expected);
        let tree = tip.tree().unwrap();
        let text = |path: &str| {
            let entry = tree.get_path(Path::new(path)).ok()?;
            let blob = entry.to_object(&repo).unwrap().into_blob().unwrap();
            Some(String::from_utf8(blob.content().to_vec()).unwrap())
        };
        assert_eq!(text(AUTO.0).as_deref(), Some(AUTO.2));
        assert_eq!((text(ASKS.0), text(ASKS.1).as_deref()), (None, Some(ASKS.2)));
        // Every object that the branch names is there and whole.
        for commit in &commits {
            commit
                .tree()
                .unwrap()
                .walk(git2::TreeWalkMode::PreOrder, |_, entry| {
                    assert!(entry.kind() != Some(ObjectType::Blob) || repo.find_blob(entry.id()).is_ok());
                    git2::TreeWalkResult::Ok
                })
                .unwrap();
        }
    }

    /// No lock file of git's is left, neither in the repository nor in the worker's mirror.
    fn has_no_locks(&self) {
        for root in [self.repo().join(".git"), self.home()] {
            for entry in WalkDir::new(&root) {
                let path = entry.unwrap().into_path();
                let ours = ["repo.lock", "mirror.lock"].iter().any(|ours| path.ends_with(ours));
                assert!(ours || path.extension().is_none_or(|end| end != "lock"), "{} is left", path.display());
            }
        }
    }

    /// No worktree is left, nor what the mirror knew of one.
    fn has_no_worktrees(&self) {
        let names = |folder: &Path| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let roots = self.home().join(".local/state/autopack");
        let root = roots.join(&names(&roots)[0]);
        for folder in [".trash", ".scratch", ".pool", "mirror.git/worktrees"] {
            assert_eq!(names(&root.join(folder)), [""; 0], "in {folder}");
        }
        let known = [".trash", ".scratch", ".pool", ".sandbox", "data_dir", "mirror.git", "mirror.lock", "repo.lock"];
        let left: Vec<String> = names(&root).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        assert_eq!(left, [""; 0], "worktrees in {}", root.display());
    }

    /// No process of a lease of this site's worker is left.
    fn has_no_leftovers(&self) {
        let mark = format!("AUTOPACK_LEASE={}", self.home().display());
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let found = environment.split(|byte| *byte == 0).any(|one| one.starts_with(mark.as_bytes()));
            assert!(!found, "{} is left", entry.path().display());
        }
    }
}
