//! `sandbox` and `sandbox-builtin`: what a sandbox costs over a bare start of the same program, turn by turn; from the
//! start to the moment when nothing of it is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use autopack_worker::process::output::Output;
use autopack_worker::process::{self, Cage, ProcEnd, ProcSpec};
use autopack_worker::sandbox::{Place, Sandbox, SandboxConfig};

use super::Bench;
use super::report::{Aim, Better, Figure, Floor};
use super::services::scratch;
use super::stats::Sample;
use crate::commands::sandbox::on_path;
use crate::exit::{CliError, During as _};

/// Starts a repetition.
const STARTS: u32 = 10;

/// A median of at most so many milliseconds over the bare start.
const AIM: f64 = 50.0;

/// Measures both ways there are; bubblewrap only where it is installed.
pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>, CliError> {
    let bwrap = on_path(bench.ctx.env.get("PATH").unwrap_or_default());
    let mut figures = Vec::new();
    if bwrap.is_some() {
        figures.push(of(bench, "sandbox", "by bubblewrap", bwrap).await?);
    } else {
        bench.say("sandbox: bubblewrap is not installed, and is not measured");
    }
    figures.push(of(bench, "sandbox-builtin", "built in", None).await?);
    Ok(figures)
}

async fn of(bench: &Bench<'_>, name: &'static str, means: &str, bwrap: Option<PathBuf>) -> Result<Figure, CliError> {
    let folder = scratch(bench.dir(), "autopack-bench-sandbox-")?;
    let helper = std::env::current_exe().during("find this program")?;
    let config = SandboxConfig { bwrap, ..SandboxConfig::new(helper, folder.path().join("own")) };
    let sandbox = Arc::new(Sandbox::open(config).during("look at this host")?);
    for part in ["tree", "task"] {
        std::fs::create_dir(folder.path().join(part)).during("make a folder")?;
    }
    let (mut over, mut bare) = (Sample::default(), Sample::default());
    // The first round warms caches.
    for round in 0..=bench.repeat() * STARTS {
        let without = took(&spec(folder.path(), Cage::None)).await?;
        let place = Place { tree: folder.path().join("tree"), scratch: folder.path().join("task"), ..Place::default() };
        let within = took(&spec(folder.path(), Cage::Sandboxed(sandbox.clone(), Box::new(place)))).await?;
        if round > 0 {
            over.add((within.as_secs_f64() - without.as_secs_f64()) * 1000.0);
            bare.add_millis(without);
        }
    }
    bench.say(&format!("{name}: {:.1} ms over {:.1} ms, p95 {:.1} ms", over.median(), bare.median(), over.p95()));
    Ok(Figure {
        name,
        what: format!("a sandbox {means}, start to end of /bin/true, over a bare start of it"),
        unit: "ms",
        better: Better::Less,
        measured: over,
        floors: vec![Floor { what: "bare start", sample: bare }],
        aim: Some(Aim::AtMost(AIM)),
    })
}

fn spec(folder: &Path, cage: Cage) -> ProcSpec {
    ProcSpec {
        argv: vec!["/bin/true".to_owned()],
        cwd: folder.join("tree"),
        env: Vec::new(),
        lease: format!("{}|bench", folder.display()),
        timeout: Duration::from_secs(60),
        log_budget: 1 << 16,
        output: Output::default(),
        frozen: tokio::sync::watch::channel(false).1,
        cage,
    }
}

async fn took(spec: &ProcSpec) -> Result<Duration, CliError> {
    let from = Instant::now();
    let report = process::run(spec, &CancellationToken::new()).await.map_err(std::io::Error::other);
    let report = report.during("start a sandbox")?;
    if report.end != ProcEnd::Exit(0) {
        return Err(std::io::Error::other(format!("{:?} {}", report.end, report.tail))).during("run in a sandbox");
    }
    Ok(from.elapsed())
}
