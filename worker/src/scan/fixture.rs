//! Repositories for tests, made with the git program so that what our reader says is checked against another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use autopack_shared::domain::gap::{Gap, GapReportV1, GapType};
use autopack_shared::domain::ids::{ProjectId, RunId, Timestamp};

use super::{ScanOptions, scan};

/// A repository in a temporary folder.
pub(crate) struct Fixture {
    dir: TempDir,
}

pub(crate) const LONG: &str = "A document that is long enough to be worth keeping once, and only once, in a tree.\n";

impl Fixture {
    /// One commit with a README and the baseline policy: no gaps.
    pub(crate) fn clean() -> Self {
        let this = Self { dir: TempDir::new().unwrap() };
        this.git(&["init", "-q", "-b", "main"]);
        this.write("README.md", "# A project\n");
        this.write("config/baseline_policy.yaml", "version: 1\n");
        this.commit();
        this
    }

    /// A clean repository with these files committed on top.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let this = Self::clean();
        for (path, text) in files {
            this.write(path, text);
        }
        this.commit();
        this
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(crate) fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x"]);
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = self.git_may_fail(arguments);
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn git_may_fail(&self, arguments: &[&str]) -> std::process::Output {
        Command::new("git")
            .current_dir(self.root())
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"])
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .unwrap()
    }

    pub(crate) fn scan(&self) -> GapReportV1 {
        self.scan_with(&options())
    }

    pub(crate) fn scan_with(&self, options: &ScanOptions) -> GapReportV1 {
        scan(self.root(), options).unwrap()
    }

    /// The gaps of one kind.
    pub(crate) fn gaps(&self, kind: GapType) -> Vec<Gap> {
        self.scan().gaps.into_iter().filter(|gap| gap.gap_type == kind).collect()
    }

    /// The only gap of one kind.
    pub(crate) fn gap(&self, kind: GapType) -> Gap {
        let mut gaps = self.gaps(kind);
        assert_eq!(gaps.len(), 1, "{gaps:#?}");
        gaps.remove(0)
    }
}

pub(crate) fn options() -> ScanOptions {
    let now = Timestamp::from_millis(1_767_225_600_000);
    ScanOptions::new(RunId::new("scan").unwrap(), ProjectId::new("fixture").unwrap(), now)
}
