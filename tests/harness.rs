//! A scratch repository and the binary, run with an empty environment and a home of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use git2::{Commit, IndexAddOption, Repository, RepositoryInitOptions, Signature, Time};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) mod collector;
pub(crate) mod etcd;
pub(crate) mod kinds;
#[allow(dead_code, reason = "other suites use more of it")]
pub(crate) mod postgres;
pub(crate) mod standin;
pub(crate) mod wire;

/// A repository with one change that is applied by itself, a link in `examples/`, and one that asks, a note in the
/// root.
pub(crate) const SITE: &[(&str, &str)] = &[
    ("README.md", "# Site\n\nWith [a guide](docs/guide.md).\n"),
    ("docs/guide.md", "# Guide\n\nA page of its own.\n"),
    ("config/baseline_policy.yaml", "version: 1\n"),
    (".autopack/anchor_v2.json", ANCHOR),
    ("autopack.toml", "[policy]\nextends = \"autopack\"\n"),
    ("NOTES-old.md", "# Old notes\n"),
    ("examples/page.md", "# Page\n\nSee [it](other.md).\n"),
    ("examples/deep/other.md", "# Other\n\nA page of its own.\n"),
];

const ANCHOR: &str = r#"{"format_version":"v2","project_id":"site","created_at":"2026-01-01T00:00:00Z",
"raw_input_digest":"0123456789abcdef","pivot_intentions":{"safety_risk":{"risk_tolerance":"moderate"},
"scope_boundaries":{"allowed_write_roots":["examples"]},
"governance_review":{"default_policy":"deny","auto_approve_rules":[
{"rule_id":"links","description":"links in examples","conditions":["path:examples/**"]}]}}}"#;

/// A folder with a repository `repo` and a home.
pub(crate) struct Bench {
    dir: TempDir,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// Data.
    pub(crate) stdout: String,
    /// Everything else.
    pub(crate) stderr: String,
}

impl Ran {
    /// The document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same, asserting the exit code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl Bench {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("home")).unwrap();
        std::fs::create_dir_all(dir.path().join("repo")).unwrap();
        Self { dir }
    }

    /// A repository with these files in one commit on `main`.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        Self::empty().fill(files)
    }

    /// Makes the repository, with these files in one commit on `main`.
    pub(crate) fn fill(self, files: &[(&str, &str)]) -> Self {
        Repository::init_opts(self.repo(), RepositoryInitOptions::new().initial_head("main")).unwrap();
        for (path, text) in files {
            self.write(path, text);
        }
        self.commit("one");
        self
    }

    /// The repository's folder.
    pub(crate) fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// The folder around it.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the work tree.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.repo().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits everything.
    pub(crate) fn commit(&self, message: &str) -> String {
        let repo = Repository::open(self.repo()).unwrap();
        let mut index = repo.index().unwrap();
        index.add_all(["*"], IndexAddOption::DEFAULT, None).unwrap();
        index.update_all(["*"], None).unwrap();
        index.write().unwrap();
        let tree = repo.find_tree(index.write_tree().unwrap()).unwrap();
        let who = Signature::new("t", "t@example.invalid", &Time::new(0, 0)).unwrap();
        let parent = repo.head().ok().and_then(|head| head.peel_to_commit().ok());
        let parents: Vec<&Commit<'_>> = parent.iter().collect();
        repo.commit(Some("HEAD"), &who, &who, message, &tree, &parents).unwrap().to_string()
    }

    /// Runs the binary in the repository.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_in(&self.repo(), args, &[])
    }

    /// Runs the binary somewhere, with more environment.
    pub(crate) fn run_in(&self, folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Ran {
        self.finish(self.command(folder).args(args).envs(env.iter().copied()))
    }

    /// Runs a command to its end.
    pub(crate) fn finish(&self, command: &mut Command) -> Ran {
        ran(&command.output().unwrap())
    }

    /// The binary, ready to be started in a folder.
    pub(crate) fn command(&self, folder: &Path) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_autopack")), folder)
    }

    /// Another place of the binary, likewise.
    pub(crate) fn command_of(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.dir.path().join("home"))
            .env("PATH", "/usr/bin:/bin")
            .env("COLUMNS", "100");
        command.current_dir(folder).stdin(std::process::Stdio::null());
        command
    }

    /// Text with the parts taken out that differ from run to run.
    pub(crate) fn stable(&self, text: &str) -> String {
        let dir = self.dir.path().canonicalize().unwrap();
        text.replace(&dir.display().to_string(), "[dir]").replace(&self.dir.path().display().to_string(), "[dir]")
    }
}

pub(crate) fn ran(output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
