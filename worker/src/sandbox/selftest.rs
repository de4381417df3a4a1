//! Measures how far a sandbox holds: attempts to get out are made inside a real one, with things outside that they aim
//! at. The level is what was denied.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::sandbox::{SandboxLayer as Layer, SandboxLevel, SelftestResult as Attempt};

use super::config::Sandbox;
use super::entry::PROBE;
use super::preflight;
use super::probe::{RESULTS, Tried};
use super::spec::{INIT, Way};
use crate::process::{self, Cage, ProcEnd, ProcSpec};
pub(super) mod cache;
mod canary;

use canary::Canaries;

/// How long all attempts may take together.
const LIMIT: Duration = Duration::from_secs(60);

/// Every attempt that has to be made, and what it tells about. One that was not made was not denied.
const EXPECTED: &[(&str, Layer)] = &[
    ("read_host_file", Layer::Fence),
    ("read_shadow", Layer::Fence),
    ("read_passwd", Layer::Apart),
    ("read_private_file", Layer::Bounds),
    ("see_host_folders", Layer::Fence),
    ("see_git", Layer::Fence),
    ("write_outside", Layer::Fence),
    ("link_out", Layer::Fence),
    ("proc_roads", Layer::Fence),
    ("devices", Layer::Fence),
    ("write_beside_rules", Layer::Fence),
    ("set_id_bits", Layer::Fence),
    ("environment", Layer::Fence),
    ("tcp_host", Layer::Apart),
    ("tcp_metadata", Layer::Apart),
    ("udp_host", Layer::Apart),
    ("unix_path", Layer::Apart),
    ("unix_abstract", Layer::Fence),
    ("other_families", Layer::Fence),
    ("network_devices", Layer::Apart),
    ("signal_worker", Layer::Fence),
    ("see_processes", Layer::Apart),
    ("shared_memory", Layer::Apart),
    ("host_namespaces", Layer::Apart),
    ("new_user_namespace", Layer::Fence),
    ("join_namespace", Layer::Fence),
    ("mount", Layer::Fence),
    ("ptrace", Layer::Fence),
    ("kernel_programs", Layer::Fence),
    ("keyring", Layer::Fence),
    ("file_handles", Layer::Fence),
    ("become_root", Layer::Fence),
    ("chroot", Layer::Fence),
    ("personality", Layer::Fence),
    ("limits_of_init", Layer::Fence),
    ("terminal_input", Layer::Fence),
    ("core_dump", Layer::Fence),
    ("large_file", Layer::Fence),
    ("fill_tmp", Layer::Apart),
    ("many_files", Layer::Bounds),
    ("outlive", Layer::Apart),
    ("fork_bomb", Layer::Apart),
    ("memory", Layer::Bounds),
];

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The level.
    pub level: SandboxLevel,
    /// By which means the sandbox was built.
    pub means: String,
    /// Why there was none, where there was none.
    pub trouble: Option<String>,
    /// The attempts; none where there was no sandbox.
    pub attempts: Vec<Attempt>,
}

impl Report {
    /// How many were denied.
    #[must_use]
    pub fn denied(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.denied).count()
    }

    fn nothing(means: String, trouble: String) -> Self {
        Self { level: SandboxLevel::S0, means, trouble: Some(trouble), attempts: Vec::new() }
    }
}

/// The level that a set of attempts amounts to.
fn level(attempts: &[Attempt]) -> SandboxLevel {
    let holds = |layer: Layer| {
        let of = |name: &str| attempts.iter().any(|attempt| attempt.name == name && attempt.denied);
        EXPECTED.iter().filter(|(_, of_layer)| *of_layer == layer).all(|(name, _)| of(name))
    };
    match (holds(Layer::Fence), holds(Layer::Apart), holds(Layer::Bounds)) {
        (true, true, true) => SandboxLevel::S3,
        (true, true, false) => SandboxLevel::S2,
        (true, false, _) => SandboxLevel::S1,
        (false, _, _) => SandboxLevel::S0,
    }
}

impl Sandbox {
    /// Measures now.
    pub async fn measure(self: &Arc<Self>) -> Report {
        let means = match self.way() {
            Way::Bwrap(path) => format!("bubblewrap at {}", path.display()),
            Way::Builtin => "built in".to_owned(),
        };
        if let Some(why) = preflight::check(nix::unistd::geteuid().is_root()) {
            return Report::nothing(means, why);
        }
        match self.attempts().await {
            Ok(attempts) => Report { level: level(&attempts), means, trouble: None, attempts },
            Err(trouble) => Report::nothing(means, trouble),
        }
    }

    async fn attempts(self: &Arc<Self>) -> Result<Vec<Attempt>, String> {
        let canaries = Canaries::set().map_err(|e| format!("nothing to aim at: {e}"))?;
        let spec = ProcSpec {
            argv: vec![INIT.to_owned(), PROBE.to_owned(), canaries.scratch().join("aims.json").display().to_string()],
            cwd: canaries.tree(),
            env: vec![("SECRET".to_owned(), "canary".to_owned())],
            lease: format!("{}|selftest", self.config().folder.display()),
            timeout: LIMIT,
            log_budget: 1 << 16,
            frozen: tokio::sync::watch::channel(false).1,
            output: crate::process::output::Output::default(),
            cage: Cage::Sandboxed(self.clone(), Box::new(canaries.place())),
        };
        let report = process::run(&spec, &CancellationToken::new()).await.map_err(|error| with_sources(&error))?;
        let mut tried = read(&canaries).map_err(|e| format!("no results: {e}"))?;
        if report.end == ProcEnd::OutOfMemory {
            // It took all of it along, as some kernels do, and nothing else could be the reason.
            let detail = "the kernel ended all of it".to_owned();
            tried.entry("memory".to_owned()).or_insert(Tried { name: "memory".to_owned(), denied: true, detail });
        }
        canaries.judge(&mut tried).await;
        if tried.is_empty() {
            return Err(format!("no attempt was made: {:?} {}", report.end, report.tail));
        }
        Ok(EXPECTED.iter().map(|(name, layer)| attempt(name, *layer, tried.get(*name))).collect())
    }
}

fn attempt(name: &str, layer: Layer, tried: Option<&Tried>) -> Attempt {
    let (denied, detail) = tried.map_or_else(|| (false, "was not made".to_owned()), |t| (t.denied, t.detail.clone()));
    Attempt { name: name.to_owned(), layer, denied, detail }
}

fn read(canaries: &Canaries) -> io::Result<BTreeMap<String, Tried>> {
    let text = std::fs::read_to_string(canaries.tree().join(RESULTS))?;
    let tried = text.lines().map(serde_json::from_str::<Tried>).collect::<Result<Vec<_>, _>>()?;
    Ok(tried.into_iter().map(|tried| (tried.name.clone(), tried)).collect())
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_what_was_denied() {
        let all = |but: &[&str]| {
            EXPECTED
                .iter()
                .map(|(name, layer)| {
                    let tried = Tried { name: (*name).to_owned(), denied: !but.contains(name), detail: String::new() };
                    attempt(name, *layer, Some(&tried))
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(level(&all(&[])), SandboxLevel::S3);
        assert_eq!(level(&all(&["memory"])), SandboxLevel::S2);
        assert_eq!(level(&all(&["udp_host", "memory"])), SandboxLevel::S1);
        assert_eq!(level(&all(&["ptrace"])), SandboxLevel::S0);
        assert_eq!(level(&[]), SandboxLevel::S0);
        assert_eq!(level(&all(&[])[1..]), SandboxLevel::S0, "what was not tried was not denied");
    }
}
