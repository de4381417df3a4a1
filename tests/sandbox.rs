//! Real attacks from inside a real sandbox, with things outside that they aim at; by bubblewrap and by the built-in
//! way, for both have one contract.

mod egress;
mod filesystem;
mod fuzz;
mod level;
mod network;
mod orphans;
mod processes;
mod resources;
mod runs;
mod started;
mod strict;
mod talks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use autopack_worker::egress::Egress;
use autopack_worker::process::{self, Cage, ProcEnd, ProcError, ProcReport, ProcSpec};
use autopack_worker::sandbox::{Bounds, Place, Sandbox, SandboxConfig};

/// A tree, a task and a sandbox around them.
struct Jail {
    dir: TempDir,
    sandbox: Arc<Sandbox>,
    timeout: Duration,
    env: Vec<(String, String)>,
    egress: Option<Arc<Egress>>,
}

/// The ways there are on this machine.
fn ways() -> [Option<PathBuf>; 2] {
    [Some(PathBuf::from("/usr/bin/bwrap")), None]
}

impl Jail {
    fn new(bwrap: Option<PathBuf>) -> Self {
        Self::with(bwrap, |_| ())
    }

    /// One whose settings somebody changed.
    fn with(bwrap: Option<PathBuf>, change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["tree", "task"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("tree/file"), "of the tree").unwrap();
        std::fs::write(dir.path().join("task/task.json"), "{}").unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_autopack"));
        let mut config = SandboxConfig { bwrap, ..SandboxConfig::new(program, dir.path().join("own")) };
        config.bounds = Bounds { memory: 512 << 20, pids: 64, cpu_percent: 400 };
        change(&mut config);
        let sandbox = Arc::new(Sandbox::open(config).unwrap());
        Self { dir, sandbox, timeout: Duration::from_secs(60), env: Vec::new(), egress: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self, argv: &[&str]) -> ProcSpec {
        let (tree, scratch, egress) = (self.path("tree"), self.path("task"), self.egress.clone());
        let place = Place { tree, scratch, egress, ..Place::default() };
        ProcSpec {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            cwd: self.path("tree"),
            env: self.env.clone(),
            lease: format!("{}|lease", self.dir.path().display()),
            timeout: self.timeout,
            log_budget: 1 << 20,
            frozen: tokio::sync::watch::channel(false).1,
            output: autopack_worker::process::output::Output::default(),
            cage: Cage::Sandboxed(self.sandbox.clone(), Box::new(place)),
        }
    }

    async fn try_run(&self, argv: &[&str]) -> Result<ProcReport, ProcError> {
        process::run(&self.spec(argv), &CancellationToken::new()).await
    }

    /// Runs a script of the shell.
    async fn sh(&self, script: &str) -> ProcReport {
        self.try_run(&["/bin/sh", "-c", script]).await.unwrap()
    }

    /// What a script says, which has to end well.
    async fn says(&self, script: &str) -> String {
        let report = self.sh(script).await;
        assert_eq!(report.end, ProcEnd::Exit(0), "{script}: {report:?}");
        report.tail.trim().to_owned()
    }

    /// Whether a script is refused: it must not end well.
    async fn refuses(&self, script: &str) {
        let report = self.sh(script).await;
        assert!(matches!(report.end, ProcEnd::Exit(code) if code != 0), "{script}: {report:?}");
    }
}

/// Processes of this host whose words have a mark.
fn running(mark: &str) -> Vec<i32> {
    let of = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        // Whoever only names it, such as the shell that started it, is no such process.
        words.trim_end().ends_with(mark).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

/// A folder of this test that everybody could read.
fn canary(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.join("canary");
    std::fs::write(&file, "outside").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    file
}

#[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
