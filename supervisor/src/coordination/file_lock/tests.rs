//! What only files have: modes, contents, replacement, other processes, the end of a process.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Child, Command, Stdio};

use autopack_shared::runtime::clock::ManualClock;

use super::*;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn workers(&self) -> PathBuf {
        self.folder.path().join("workers")
    }

    fn open(&self) -> FileCoordinator {
        FileCoordinator::open(&self.data(), &self.workers(), Arc::new(ManualClock::at(0))).unwrap()
    }
}

/// Another process that holds a lock until its input ends.
fn hold_elsewhere(path: &Path) -> Child {
    let script = r#"exec 9>>"$1"; flock -n 9 || exit 9; echo held; exec cat >/dev/null"#;
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    child
}

fn run_lock(run: &str) -> LockName {
    LockName::Run(run.parse().unwrap())
}

fn owner() -> LockOwner {
    LockOwner { worker: "w-1".parse().unwrap(), session: "s 1".to_owned(), epoch: 3 }
}

#[tokio::test]
async fn a_data_directory_is_private_and_ignored() {
    let bench = Bench::new();
    fs::create_dir(bench.data()).unwrap();
    fs::set_permissions(bench.data(), fs::Permissions::from_mode(0o755)).unwrap();
    let first = bench.open();
    first.campaign("r").await.unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(bench.data()), 0o700);
    assert_eq!(mode(bench.workers()), 0o700);
    assert_eq!(mode(bench.data().join("locks/run")), 0o700);
    assert_eq!(mode(bench.data().join("autopack.lock")), 0o600);
    assert_eq!(fs::read_to_string(bench.data().join(".gitignore")).unwrap(), "*\n");
    // What somebody wrote there stays.
    fs::write(bench.data().join(".gitignore"), "*\n!run.log\n").unwrap();
    bench.open();
    assert_eq!(fs::read_to_string(bench.data().join(".gitignore")).unwrap(), "*\n!run.log\n");
}

#[tokio::test]
async fn a_failed_attempt_names_the_holder_and_leaves_its_words_alone() {
    let bench = Bench::new();
    let (first, second) = (bench.open(), bench.open());
    first.campaign("replica-1").await.unwrap();
    let before = fs::read_to_string(bench.data().join("autopack.lock")).unwrap();
    assert!(before.contains(&format!("pid {} on ", std::process::id())), "{before}");
    assert!(before.contains("since 1970-01-01T00:00:00.000Z"), "{before}");
    let refusal = second.campaign("replica-2").await.unwrap_err();
    let CoordinationError::DataDirLocked { path, holder } = &refusal else { panic!("{refusal}") };
    assert_eq!((path.as_str(), holder.as_str()), (bench.data().to_str().unwrap(), before.trim()));
    assert_eq!(fs::read_to_string(bench.data().join("autopack.lock")).unwrap(), before);
    first.resign().await.unwrap();
    second.campaign("replica-2").await.unwrap();
    assert!(fs::read_to_string(bench.data().join("autopack.lock")).unwrap().ends_with("as replica-2\n"));
}

#[tokio::test]
async fn two_data_directories_of_one_repository_exclude_each_other() {
    let bench = Bench::new();
    let first = bench.open();
    first.campaign("r").await.unwrap();
    let elsewhere = bench.folder.path().join("other");
    let clock = Arc::new(ManualClock::at(0));
    let second = FileCoordinator::open(&elsewhere, &bench.workers(), clock).unwrap();
    let refusal = second.campaign("r").await.unwrap_err();
    assert!(
        matches!(&refusal, CoordinationError::DataDirLocked { path, .. } if *path == bench.workers().display().to_string())
    );
    // The half that it had taken is free again.
    let mut child = hold_elsewhere(&elsewhere.join("autopack.lock"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!second.is_director().await.unwrap());
}

#[tokio::test]
async fn a_lock_ends_with_its_process() {
    let bench = Bench::new();
    let coordinator = bench.open();
    let mut child = hold_elsewhere(&bench.data().join("autopack.lock"));
    assert!(matches!(coordinator.campaign("r").await, Err(CoordinationError::DataDirLocked { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    coordinator.campaign("r").await.unwrap();
}

#[tokio::test]
async fn a_child_does_not_inherit_a_lock() {
    let bench = Bench::new();
    let coordinator = bench.open();
    coordinator.campaign("r").await.unwrap();
    let seen = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.contains("/proc/") && !seen.contains(".lock"), "{seen}");
}

#[tokio::test]
async fn a_replaced_or_removed_lock_file_is_noticed() {
    for file in ["data/autopack.lock", "workers/repo.lock"] {
        for replace in [true, false] {
            let bench = Bench::new();
            let coordinator = bench.open();
            coordinator.campaign("r").await.unwrap();
            assert!(coordinator.is_director().await.unwrap());
            let path = bench.folder.path().join(file);
            fs::rename(&path, bench.folder.path().join("aside")).unwrap();
            if replace {
                fs::write(&path, "").unwrap();
            }
            let refusal = coordinator.is_director().await.unwrap_err();
            assert!(
                matches!(&refusal, CoordinationError::LockReplaced { path: p } if *p == path.display().to_string())
            );
        }
    }
}

#[tokio::test]
async fn a_link_in_the_place_of_a_lock_file_is_refused() {
    let bench = Bench::new();
    let coordinator = bench.open();
    let victim = bench.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, bench.data().join("autopack.lock")).unwrap();
    assert!(matches!(coordinator.campaign("r").await, Err(CoordinationError::Unusable { .. })));
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[tokio::test]
async fn a_lock_of_another_process_is_held_and_its_owner_read() {
    let bench = Bench::new();
    let coordinator = bench.open();
    let path = bench.data().join("locks/run/a.lock");
    let mut child = hold_elsewhere(&path);
    fs::write(&path, "w-9 7 session of theirs\n").unwrap();
    coordinator.open_session(&owner().worker, &owner().session, &SessionFacts::default()).await.unwrap();
    let both = [LockName::Workspace("a".parse().unwrap()), run_lock("a")];
    let refusal = coordinator.lock(&both, &owner()).await.unwrap_err();
    assert!(
        matches!(&refusal, CoordinationError::Held { lock, holder } if lock == "run a" && holder.starts_with("w-9 7 "))
    );
    assert_eq!(coordinator.holder(&both[0]).await.unwrap(), None, "all or none");
    let theirs = LockOwner { worker: "w-9".parse().unwrap(), session: "session of theirs".to_owned(), epoch: 7 };
    assert_eq!(coordinator.holder(&run_lock("a")).await.unwrap(), Some(theirs));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(coordinator.holder(&run_lock("a")).await.unwrap(), None, "what a file says is nothing without its lock");
    coordinator.lock(&both, &owner()).await.unwrap();
    assert!(path.exists());
    coordinator.unlock(&both, &owner()).await.unwrap();
    assert!(path.exists(), "lock files are never unlinked");
}
