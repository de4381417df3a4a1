//! The sandboxes of one worker: found out once how they can be built here, then one for each process.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use autopack_shared::domain::sandbox::SandboxProfile;

use super::cgroup::{Bounds, Group, Groups};
use super::layout::{self, Place};
use super::quota::{Used, Watched};
use super::slots::Slot;
use super::spec::{EGRESS_PORT, Inner, Mount, Outer, Rlimits, Way, Weakness};
use super::standing::Standing;
use super::{etc, landlocked, outer};
use crate::process::ProcSpec;

/// Milliseconds without a sign of life of the worker after which a sandbox ends.
const DEADMAN_MS: u64 = 12_000;

/// How sandboxes are built.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// This program.
    pub helper: PathBuf,
    /// Bubblewrap; the built-in way where there is none.
    pub bwrap: Option<PathBuf>,
    /// A folder that only the worker reads.
    pub folder: PathBuf,
    /// Folders of the host that can be read inside: toolchains.
    pub readable: Vec<PathBuf>,
    /// Bounds of everything inside together.
    pub bounds: Bounds,
    /// Bytes of `/tmp`; they count as memory too.
    pub tmp_bytes: u64,
    /// Files of `/tmp`.
    pub tmp_files: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes on the disk of the tree, and of what else can be written there.
    pub tree_bytes: u64,
    /// Files of it.
    pub tree_files: u64,
    /// How much is let through, where a job asks for nothing stricter.
    pub profile: SandboxProfile,
    /// How long what was measured is good.
    pub selftest_every: Duration,
    /// Layers left out, to prove that the attempts notice.
    pub weak: Vec<Weakness>,
}

impl SandboxConfig {
    /// The usual bounds.
    #[must_use]
    pub fn new(helper: PathBuf, folder: PathBuf) -> Self {
        Self {
            helper,
            bwrap: None,
            folder,
            readable: Vec::new(),
            bounds: Bounds { memory: 4 << 30, pids: 512, cpu_percent: 400 },
            tmp_bytes: 1 << 30,
            tmp_files: 200_000,
            file_bytes: 4 << 30,
            open_files: 4096,
            tree_bytes: 16 << 30,
            tree_files: 1_000_000,
            profile: SandboxProfile::default(),
            selftest_every: Duration::from_secs(6 * 3600),
            weak: Vec::new(),
        }
    }
}

/// Why nothing ran.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The sandbox could not be built.
    #[error("the sandbox could not be built: {0}")]
    Failed(String),
    /// The sandbox stands, but the program cannot be started in it.
    #[error("cannot start {program} in the sandbox: {why}")]
    NoProgram {
        /// The program.
        program: String,
        /// The system's word.
        why: String,
    },
}

/// What one process is confined by.
pub(super) struct Parts {
    pub(super) outer: Outer,
    pub(super) inner: Inner,
    pub(super) group: Option<Group>,
    pub(super) slot: Option<Slot>,
}

/// The sandboxes of one worker.
#[derive(Debug)]
pub struct Sandbox {
    config: SandboxConfig,
    groups: Groups,
    root: bool,
    host_net: u64,
    landlock_abi: i32,
    pub(super) standing: watch::Sender<Option<Arc<Standing>>>,
    // Held while it is measured.
    pub(super) measuring: Mutex<()>,
}

impl Sandbox {
    /// Finds out what this host has, and sweeps what workers that are gone have left.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn open(config: SandboxConfig) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.folder)?;
        etc::write(&config.folder.join("etc"))?;
        let groups = Groups::discover();
        groups.sweep();
        Ok(Self {
            groups,
            root: nix::unistd::geteuid().is_root(),
            host_net: std::fs::metadata("/proc/self/ns/net")?.ino(),
            landlock_abi: landlocked::probe(),
            standing: watch::Sender::new(None),
            measuring: Mutex::default(),
            config,
        })
    }

    /// How it is built.
    #[must_use]
    pub const fn config(&self) -> &SandboxConfig {
        &self.config
    }

    /// By which means.
    pub(super) fn way(&self) -> Way {
        self.config.bwrap.clone().map_or(Way::Builtin, Way::Bwrap)
    }

    /// What of the disk is counted.
    pub(super) fn watched(&self, place: &Place, group: Option<&Group>) -> Watched {
        let reports = place.reports.then(|| place.scratch.clone());
        let places = std::iter::once(place.tree.clone()).chain(place.data.clone()).chain(reports).collect();
        let most = Used { bytes: self.config.tree_bytes, files: self.config.tree_files };
        Watched { places, processes: group.and_then(Group::list), most }
    }

    /// Everything that one process is confined by.
    pub(super) fn parts(&self, place: &Place, spec: &ProcSpec) -> Result<Parts, SandboxError> {
        let failed = |what: &str, e: io::Error| SandboxError::Failed(format!("{what}: {e}"));
        let (config, weak) = (&self.config, &self.config.weak);
        let bounds = place.bounds.unwrap_or(config.bounds);
        let strict = config.profile.max(place.profile) == SandboxProfile::Strict;
        let usual = (config.tmp_bytes, config.tmp_files, config.file_bytes);
        let (tmp_bytes, tmp_files, file_bytes) = place.small.unwrap_or(usual);
        let group = if outer::lacks(weak, Weakness::Cgroup) {
            None
        } else {
            Some(self.groups.make(bounds).map_err(|e| failed("no control group", e))?)
        };
        let own_user = outer::lacks(weak, Weakness::Uid) || outer::lacks(weak, Weakness::User);
        let slot = if self.root && !own_user { Some(Slot::take().map_err(|e| failed("no user", e))?) } else { None };
        let mut mounts = place.mounts(&config.helper, &config.folder.join("etc"), &config.readable);
        let mut readable = layout::readable(&config.readable);
        if outer::lacks(weak, Weakness::Files) {
            let as_is = |from: &PathBuf| Mount { from: from.clone(), to: from.clone(), writable: true, mapped: false };
            mounts.extend(place.exposed.iter().map(as_is));
            readable.extend(place.exposed.iter().cloned());
        }
        let outer = Outer {
            way: self.way(),
            user: slot.as_ref().map(Slot::user),
            mounts,
            links: layout::links(),
            tmp_bytes,
            tmp_files,
            mark: spec.lease.clone(),
            weak: weak.clone(),
        };
        let bounded = group.is_some() && self.groups.bounds();
        let inner = Inner {
            argv: spec.argv.iter().map(|word| place.inside(word)).collect(),
            env: place.environment(spec, outer::lacks(weak, Weakness::Env)),
            cwd: place.inside(&spec.cwd.display().to_string()).into(),
            rlimits: Rlimits {
                file_bytes,
                open_files: config.open_files,
                processes: bounds.pids,
                address_space: (!bounded).then_some(bounds.memory),
            },
            readable,
            writable: place.writable(),
            host_net: self.host_net,
            landlock_abi: self.landlock_abi,
            strict,
            tcp: strict.then(|| place.port.into_iter().chain(place.egress.as_ref().map(|_| EGRESS_PORT)).collect()),
            deadman_ms: DEADMAN_MS,
            weak: weak.clone(),
            stdin: false,
            egress: place.egress.as_ref().map(|_| EGRESS_PORT),
        };
        Ok(Parts { outer, inner, group, slot })
    }
}
