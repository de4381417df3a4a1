//! The attempts to get out, made by this program inside a sandbox. Each says whether it was denied; the worker outside
//! decides what that amounts to.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod calls;
mod files;
mod limits;
mod reach;

/// What the attempts aim at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Aims {
    /// A file outside that everybody may read.
    pub(super) secret: PathBuf,
    /// A file of the worker that is mounted, and that only its owner may read.
    pub(super) private: PathBuf,
    /// A listener by its path.
    pub(super) socket: PathBuf,
    /// A listener by its abstract name.
    pub(super) hidden: String,
    /// A TCP listener on the host's loopback.
    pub(super) tcp: u16,
    /// A UDP socket there.
    pub(super) udp: u16,
    /// Shared memory of the host.
    pub(super) shared_memory: i64,
    /// The worker.
    pub(super) worker: i32,
    /// Namespaces of the host: name and number.
    pub(super) namespaces: Vec<(String, u64)>,
    /// Processes that may be there at once.
    pub(super) pids: u64,
    /// Bytes of memory.
    pub(super) memory: u64,
    /// Bytes of `/tmp`.
    pub(super) tmp_bytes: u64,
    /// Files of `/tmp`.
    pub(super) tmp_files: u64,
    /// Bytes of one file.
    pub(super) file_bytes: u64,
    /// Variables that may be there.
    pub(super) variables: Vec<String>,
    /// Marks the process that tries to outlive all.
    pub(super) mark: String,
}

/// What an attempt came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tried {
    /// Which one.
    pub(super) name: String,
    /// Whether it was denied.
    pub(super) denied: bool,
    /// By what, or what it reached.
    pub(super) detail: String,
}

/// `Err` says what denied it, `Ok` what it reached.
type Attempt = fn(&Aims) -> Result<String, String>;

/// Where the results are written, in the tree.
pub(super) const RESULTS: &str = "results.jsonl";

/// Where it waits to outlive all.
const OUTLIVE: &str = "outlive";

/// Makes every attempt. The words are the file with the aims, or what it does as a child of itself.
pub(super) fn run(words: &[String]) -> u8 {
    match words {
        [word, _mark] if word == OUTLIVE => loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        },
        [file] => match all(Path::new(file)) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        _ => 2,
    }
}

fn all(file: &Path) -> io::Result<()> {
    let aims: Aims = serde_json::from_slice(&fs::read(file)?)?;
    let mut results = OpenOptions::new().create(true).append(true).open(Path::new(super::spec::WS).join(RESULTS))?;
    let attempts = files::ATTEMPTS.iter().chain(reach::ATTEMPTS).chain(calls::ATTEMPTS).chain(limits::ATTEMPTS);
    for (name, attempt) in attempts {
        let outcome = attempt(&aims);
        let denied = outcome.is_err();
        let detail = outcome.unwrap_or_else(|why| why);
        let tried = Tried { name: (*name).to_owned(), denied, detail: detail.chars().take(200).collect() };
        let mut line = serde_json::to_vec(&tried)?;
        line.push(b'\n');
        // One write a result: whoever is killed in an attempt has said what came before.
        results.write_all(&line)?;
    }
    Ok(())
}

/// An attempt that should fail: an error denies it.
fn reached<T>(outcome: io::Result<T>, what: &str) -> Result<String, String> {
    match outcome {
        Ok(_) => Ok(what.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Every one of several has to be denied.
fn every(outcomes: impl IntoIterator<Item = Result<String, String>>) -> Result<String, String> {
    let mut denials = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(reached) => return Ok(reached),
            Err(why) => denials.push(why),
        }
    }
    denials.dedup();
    Err(denials.join("; "))
}
