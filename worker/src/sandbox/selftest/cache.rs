//! What was measured is good for some hours, on the same kernel, with the same programs and the same settings.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Report;
use crate::sandbox::config::Sandbox;

/// The file, in the folder that only the worker reads.
const FILE: &str = "selftest.json";

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    key: String,
    report: Report,
    /// When, in milliseconds since 1970.
    measured_ms: i64,
}

/// What the measure depends on.
pub(in crate::sandbox) fn key(sandbox: &Sandbox) -> String {
    let config = sandbox.config();
    let file = |path: &std::path::Path| {
        let seen = fs::metadata(path).map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
        format!("{} {seen:?}", path.display())
    };
    let text = [
        fs::read_to_string("/proc/version").unwrap_or_default(),
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
        file(&config.helper),
        config.bwrap.as_deref().map_or_else(String::new, file),
        fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap_or_default(),
        nix::unistd::geteuid().to_string(),
        format!("{config:?}"),
    ];
    hex::encode(Sha256::digest(text.join("\n")))
}

/// What was measured and when, where that is still good.
pub(in crate::sandbox) fn read(sandbox: &Sandbox, key: &str, now_ms: i64, good: Duration) -> Option<(Report, i64)> {
    let file = sandbox.config().folder.join(FILE);
    let kept: Kept = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
    let age = Duration::from_millis(u64::try_from(now_ms.checked_sub(kept.measured_ms)?).ok()?);
    (age < good && kept.key == key).then_some((kept.report, kept.measured_ms))
}

/// Keeps it. Where that fails, the next start measures again.
pub(in crate::sandbox) fn write(sandbox: &Sandbox, key: &str, report: &Report, measured_ms: i64) {
    let kept = Kept { key: key.to_owned(), report: report.clone(), measured_ms };
    let folder = &sandbox.config().folder;
    let written = serde_json::to_vec(&kept).map_err(std::io::Error::from).and_then(|bytes| {
        let file = tempfile::NamedTempFile::new_in(folder)?;
        fs::write(file.path(), bytes)?;
        file.persist(folder.join(FILE)).map_err(|e| e.error)
    });
    if let Err(error) = written {
        tracing::debug!(%error, "what was measured of the sandbox is not kept");
    }
}
