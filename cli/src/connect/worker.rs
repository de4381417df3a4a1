//! The worker of an embedded engine.

use std::path::PathBuf;

use autopack_shared::domain::sandbox::SandboxLevel;
use autopack_worker::daemon::WorkerConfig;
use autopack_worker::link::Identity;
use autopack_worker::runners::Objects;

use super::{builder_env, objects_dir};
use crate::args::sandbox::SandboxArgs;
use crate::commands::sandbox;
use crate::context::{Context, Place};
use crate::exit::CliError;

/// What it is made of, below its root.
pub(super) fn worker_config(ctx: &Context, place: &Place, root: PathBuf) -> Result<WorkerConfig, CliError> {
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
    })
}
