//! What a worker of this process is made of.

use std::path::{Path, PathBuf};
use std::time::Duration;

use autopack_shared::domain::provision::Provisions;
use autopack_shared::domain::sandbox::SandboxLevel;
use autopack_shared::runtime::config::EgressSettings;
use autopack_worker::daemon::WorkerConfig;
use autopack_worker::egress;
use autopack_worker::link::Identity;
use autopack_worker::pool::WarmLimits;
use autopack_worker::provision::Provision;
use autopack_worker::runners::Objects;

use super::objects_dir;
use crate::args::sandbox::SandboxArgs;
use crate::commands::sandbox;
use crate::context::{Context, Place};
use crate::exit::{CliError, During as _};

/// Bytes.
const MIB: usize = 1024 * 1024;

/// The embedded worker's. Ignored files that a project lists come from the checkout itself.
pub(super) fn config(ctx: &Context, place: &Place, root: PathBuf) -> Result<WorkerConfig, CliError> {
    let identity = Identity {
        worker: "embedded".to_owned(),
        session: ctx.ids.fresh("session"),
        boot_id: std::process::id().to_string(),
        slots: place.settings.worker_slots,
        // What was measured takes its place.
        sandbox_level: SandboxLevel::S0.to_string(),
    };
    let settings = &place.settings;
    let sandbox = SandboxArgs {
        bwrap: settings.worker_bwrap.clone(),
        sandbox_path: settings.worker_sandbox_paths.clone(),
        sandbox_memory: settings.worker_sandbox_memory,
        // As the settings have it.
        ..SandboxArgs::default()
    };
    let sandbox = sandbox::config(ctx, &sandbox, &root.join(".sandbox"))?;
    Ok(WorkerConfig {
        identity,
        root,
        objects: Objects::Borrowed(objects_dir(place)),
        run_data: Some(place.data_dir.clone()),
        env: builder_env(ctx),
        sandbox: Some(sandbox),
        log_budget: 64 * 1024 * 1024,
        transcript_limit: place.settings.worker_transcript_mib as usize * MIB,
        report_limit: u64::from(place.settings.worker_report_mib) * MIB as u64,
        providers: super::providers::providers(ctx, place.settings.providers_file.as_deref())?,
        warm: warm_limits(place.settings.worker_warm),
        provision: Provision {
            include: Some(place.root.clone()),
            ..provision(place.settings.provision_file.as_deref())?
        },
        egress: egress_limits(&place.settings.worker_egress),
    })
}

/// Bounds of what a builder or a gate sends and receives.
pub(crate) fn egress_limits(settings: &EgressSettings) -> egress::Limits {
    egress::Limits {
        up: settings.up_mb << 20,
        down: settings.down_mb << 20,
        connections: settings.connections as usize,
        head: (settings.head_kb as usize) << 10,
        idle: Duration::from_secs(settings.idle_seconds.into()),
        total: Duration::from_secs(settings.total_seconds.into()),
    }
}

/// How many worktrees of a project a worker keeps ready; the other bounds are the built-in ones.
pub(crate) fn warm_limits(count: u32) -> WarmLimits {
    WarmLimits { count: count as usize, ..WarmLimits::default() }
}

/// What the operator's file lets projects have; nothing without one.
pub(crate) fn provision(file: Option<&Path>) -> Result<Provision, CliError> {
    let Some(file) = file else { return Ok(Provision::default()) };
    let text = std::fs::read_to_string(file).during(format!("read {}", file.display()))?;
    let given = Provisions::parse(&text, &file.display().to_string()).map_err(|error| {
        CliError::invalid(
            "what projects may have is not said",
            error.to_string(),
            "docs/adr/0025-warm-worktrees.md shows such a file",
        )
    })?;
    Ok(Provision { given, include: None })
}

/// What processes of a job find of this process's environment.
pub(crate) fn builder_env(ctx: &Context) -> Vec<(String, String)> {
    ["PATH", "HOME", "LANG", "LC_ALL", "TERM", "USER", "CARGO_HOME", "RUSTUP_HOME"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), ctx.env.get(name)?.to_owned())))
        .collect()
}
