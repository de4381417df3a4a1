//! The gap scan of a repository with 50,000 files, beside `git status` and `git ls-files` on the same tree in the same
//! run, turn by turn, so that a busy machine slows both. Prints the ratio; the aim is 1.5 at most.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use autopack_shared::domain::ids::{ProjectId, RunId, Timestamp};
use autopack_worker::scan::{ScanOptions, scan};

const FILES: usize = 50_000;
const ROUNDS: usize = 9;
const AIM: f64 = 1.5;
/// Memory, where there is some to have a file system on: the disk is not what is measured.
const MEMORY: &str = "/dev/shm";

fn main() -> io::Result<()> {
    // `cargo test --benches` only wants to know that it runs.
    let (files, rounds) = if std::env::args().any(|a| a == "--bench") { (FILES, ROUNDS) } else { (500, 1) };
    let dir = TempDir::new_in(MEMORY).or_else(|_| TempDir::new())?;
    let root = dir.path();
    make_tree(root, files)?;
    git(root, &["init", "-q", "-b", "main"])?;
    git(root, &["add", "-A"])?;
    git(root, &["-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "-q", "-m", "tree"])?;
    // As a clone has it.
    git(root, &["repack", "-a", "-d", "-q"])?;
    git(root, &["prune-packed", "-q"])?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut gaps = 0;
    for round in 0..=rounds {
        let reference = timed(|| git(root, &["status", "--porcelain"]).and_then(|()| git(root, &["ls-files"])))?;
        let scanned = timed(|| {
            gaps = scan(root, &options()).map_err(io::Error::other)?.gaps.len();
            Ok(())
        })?;
        // The first round warms caches and lets git refresh its index.
        if round > 0 {
            theirs.push(reference);
            ours.push(scanned);
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("scan                      {:>8.1} ms   {files} files, {gaps} gaps", millis(ours));
    println!("git status + git ls-files {:>8.1} ms", millis(theirs));
    println!("ratio                     {ratio:>8.2}      aim <= {AIM}");
    Ok(())
}

fn options() -> ScanOptions {
    let (run, project) = (RunId::new("bench"), ProjectId::new("bench"));
    let names = run.ok().zip(project.ok()).expect("both names are valid");
    ScanOptions::new(names.0, names.1, Timestamp::from_millis(1_767_225_600_000))
}

/// Source, documents with links, data and binaries in the shares they have in large repositories.
fn make_tree(root: &Path, files: usize) -> io::Result<()> {
    fs::create_dir_all(root.join("config"))?;
    fs::write(root.join("config/baseline_policy.yaml"), "version: 1\n")?;
    fs::write(root.join("README.md"), "# A large repository\n")?;
    let folders = files.div_ceil(50);
    for folder in 0..folders {
        let path = root.join(format!("area{}/module{folder}", folder % 40));
        fs::create_dir_all(&path)?;
        for n in 0..50.min(files - folder * 50) {
            let (name, bytes) = file(folder, n);
            fs::write(path.join(name), bytes)?;
        }
    }
    Ok(())
}

fn file(folder: usize, n: usize) -> (String, Vec<u8>) {
    let mut text = String::new();
    match n % 10 {
        0 => {
            // Writing to a String cannot fail.
            let _infallible =
                writeln!(text, "# Module {folder}, page {n}\n\nSee [the code](file{}.rs) and `x`.", n + 1);
            lines(&mut text, "Prose about what this module does, and why it is done like that.", 30);
            (format!("page{n}.md"), text.into_bytes())
        }
        1..=5 => {
            lines(&mut text, &format!("pub fn call_{folder}_{n}() -> usize {{ {n} }} // one more line of code"), 60);
            (format!("file{n}.rs"), text.into_bytes())
        }
        6 | 7 => {
            lines(&mut text, &format!("def call_{folder}_{n}(): return {n}  # one more line of code"), 60);
            (format!("file{n}.py"), text.into_bytes())
        }
        8 => (format!("data{n}.json"), format!("{{\"folder\": {folder}, \"n\": {n}}}\n").into_bytes()),
        _ => (format!("image{n}.png"), (0..2048_usize).map(|i| (i * 31 + folder + n) as u8).collect()),
    }
}

fn lines(text: &mut String, line: &str, count: usize) {
    for _ in 0..count {
        text.push_str(line);
        text.push('\n');
    }
}

fn git(root: &Path, arguments: &[&str]) -> io::Result<()> {
    let status = Command::new("git")
        .current_dir(root)
        .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("git {arguments:?}: {status}"))) }
}

#[expect(clippy::disallowed_methods, reason = "time is what a benchmark measures")]
fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let start = std::time::Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
