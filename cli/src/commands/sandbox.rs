//! `sandbox selftest`: what is really denied on this host. Also how every role comes by its sandboxes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use autopack_shared::domain::sandbox::{InvalidSandboxProfile, SandboxLevel, SandboxSelftestV1};
use autopack_worker::sandbox::{Report, Sandbox, SandboxConfig, Weakness};

use crate::args::sandbox::{SandboxArgs, SandboxCommand};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};

/// Leaves out layers, to see that the attempts notice; only in builds for development.
const WEAKEN: &str = "AUTOPACK_SANDBOX_WEAKEN";

/// Runs `sandbox`.
pub(crate) async fn run(ctx: &Context, command: SandboxCommand) -> Result<Exit, CliError> {
    let SandboxCommand::Selftest(args) = command;
    ctx.out.no_sarif()?;
    let folder = tempfile::Builder::new().prefix("autopack-sandbox-").tempdir().during("make a folder")?;
    let config = config(ctx, &args.sandbox, folder.path())?;
    let sandbox = Arc::new(Sandbox::open(config).during("look at this host")?);
    let report = sandbox.measure().await;
    if ctx.out.machine() {
        ctx.out.document(&as_json(&report))?;
    } else {
        ctx.out.text(&as_text(&report))?;
    }
    Ok(if report.level == SandboxLevel::S0 { Exit::Refused } else { Exit::Done })
}

/// How sandboxes are built, below a folder of the worker's own.
pub(crate) fn config(ctx: &Context, args: &SandboxArgs, folder: &Path) -> Result<SandboxConfig, CliError> {
    let helper = std::env::current_exe().during("find this program")?;
    let mut config = SandboxConfig::new(helper, folder.to_path_buf());
    config.bwrap = match &args.bwrap {
        Some(named) if named == Path::new("none") => None,
        Some(named) => Some(named.canonicalize().during(format!("open {}", named.display()))?),
        None => on_path(ctx.env.get("PATH").unwrap_or_default()),
    };
    let settings = ctx.host_settings()?;
    let paths = if args.sandbox_path.is_empty() { &settings.worker_sandbox_paths } else { &args.sandbox_path };
    config.readable.clone_from(paths);
    config.bounds.memory = args.sandbox_memory << 20;
    let (tree_mb, tree_files) = settings.worker_sandbox_tree;
    config.tree_bytes = args.sandbox_tree.unwrap_or(tree_mb) << 20;
    config.tree_files = args.sandbox_tree_files.unwrap_or(tree_files);
    config.selftest_every = Duration::from_secs(args.sandbox_selftest.unwrap_or(settings.worker_sandbox_selftest));
    config.profile = match args.sandbox_profile {
        Some(profile) => profile,
        None => settings.worker_sandbox_profile.parse().map_err(|e| profile_invalid(&e))?,
    };
    if cfg!(debug_assertions)
        && let Some(layers) = ctx.env.get(WEAKEN)
    {
        config.weak = layers.split(',').map(weakness).collect::<Result<_, _>>()?;
    }
    Ok(config)
}

fn profile_invalid(error: &InvalidSandboxProfile) -> CliError {
    CliError::invalid("worker.sandbox_profile cannot be read", error.to_string(), "write default or strict")
}

fn weakness(name: &str) -> Result<Weakness, CliError> {
    serde_json::from_value(json!(name))
        .map_err(|e| CliError::invalid(format!("{WEAKEN} cannot be read"), e.to_string(), "unset it"))
}

/// Bubblewrap on the search path.
pub(crate) fn on_path(path: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join("bwrap")).find(|file| file.is_file())
}

fn as_json(report: &Report) -> SandboxSelftestV1 {
    SandboxSelftestV1 {
        format: "sandbox_selftest/1".to_owned(),
        level: report.level,
        means: report.means.clone(),
        trouble: report.trouble.clone(),
        attempts: report.attempts.len(),
        denied: report.denied(),
        results: report.attempts.clone(),
    }
}

fn as_text(report: &Report) -> String {
    let mut text = String::new();
    for attempt in &report.attempts {
        let word = if attempt.denied { "denied " } else { "REACHED" };
        let _infallible = writeln!(text, "{word}  {:20} {}", attempt.name, attempt.detail);
    }
    if let Some(trouble) = &report.trouble {
        let _infallible = writeln!(text, "there is no sandbox here: {trouble}");
    }
    let (denied, all) = (report.denied(), report.attempts.len());
    let _infallible = writeln!(text, "{}: {denied} of {all} attempts denied, {}", report.level, report.means);
    text
}
