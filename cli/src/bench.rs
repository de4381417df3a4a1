//! `bench`: how good it is, measured: each figure beside a floor of the same run. It starts what it needs, and leaves
//! nothing behind.

mod approve;
mod cluster;
mod first_byte;
mod grants;
mod guard;
mod idle;
mod life;
mod report;
mod sandbox;
mod scan;
mod services;
mod stand_in;
mod stats;
mod transitions;
mod tree;
mod workspace;

use std::collections::BTreeSet;
use std::path::Path;

use clap::ValueEnum as _;
use tokio::task::JoinError;

use autopack_supervisor::error::Error;

use self::cluster::Cluster;
use self::report::Figure;
use crate::args::bench::{Bench as Args, Name};
use crate::console::Console;
use crate::context::Context;
use crate::drive::Leave;
use crate::exit::{CliError, Exit};

/// Runs of each repetition, where a figure is of one run at a time.
const EACH: u32 = 10;
/// What is enough to show that it works.
const QUICK: (u32, u32) = (2, 50);

/// What is wanted, and where progress is told.
pub(crate) struct Bench<'a> {
    ctx: &'a Context,
    args: &'a Args,
    console: &'a Console,
}

impl Bench<'_> {
    /// How often each figure is measured.
    fn repeat(&self) -> u32 {
        if self.quick() { self.args.repeat.min(QUICK.0) } else { self.args.repeat }
    }

    fn workers(&self) -> u32 {
        if self.quick() { self.args.workers.min(QUICK.1) } else { self.args.workers }
    }

    const fn quick(&self) -> bool {
        self.args.quick
    }

    fn dir(&self) -> Option<&Path> {
        self.args.dir.as_deref()
    }

    fn fresh(&self, prefix: &str) -> String {
        self.ctx.ids.fresh(prefix)
    }

    fn say(&self, text: &str) {
        self.console.line(&format!("  {text}"));
    }
}

/// Runs `bench`.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    if report::build() == "debug" {
        ctx.out.warn("this is a debug build: its figures say nothing of a release build");
    }
    let console = Console::new(&ctx.out);
    let bench = Bench { ctx, args, console: &console };
    let mut leave = Leave::new()?;
    let measured = tokio::select! {
        measured = measure(&bench) => measured,
        () = leave.asked() => {
            console.done();
            return Ok(Exit::Interrupted);
        }
    };
    console.done();
    let figures = measured?;
    if ctx.out.machine() {
        ctx.out.document(&report::document(&figures))?;
    } else {
        ctx.out.table(&report::table(&figures))?;
        ctx.out.text(&format!("\n{}", report::legend(&figures)))?;
        let load = report::load().map(|load| format!(", load {load:.1}")).unwrap_or_default();
        ctx.out.note(&format!("{} build{load}; docs/PERFORMANCE.md says how to read it", report::build()));
    }
    Ok(Exit::Done)
}

async fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>, CliError> {
    let mut names: BTreeSet<Name> = bench.args.names.iter().copied().collect();
    if names.is_empty() {
        names.extend(Name::value_variants());
    }
    let mut figures = Vec::new();
    if names.iter().any(|name| name.needs_cluster()) {
        raise_files();
        bench.console.status("starting etcd, PostgreSQL and a supervisor");
        let mut cluster = Box::pin(Cluster::start(bench.ctx, bench.dir())).await?;
        // In this order: the worker comes last, it would take grants that others are to count.
        for name in &names {
            bench.console.status(format!("measuring {}", word(*name)));
            match name {
                Name::Grants => figures.push(Box::pin(grants::measure(bench, &cluster)).await?),
                Name::Transitions => figures.extend(Box::pin(transitions::measure(bench, &cluster)).await?),
                Name::Idle => figures.extend(Box::pin(idle::measure(bench, &cluster)).await?),
                Name::FirstByte => figures.push(Box::pin(first_byte::measure(bench, &mut cluster)).await?),
                Name::Approve => figures.push(Box::pin(approve::measure(bench, &mut cluster)).await?),
                Name::Scan | Name::Workspace | Name::Sandbox => {}
            }
        }
    }
    if names.contains(&Name::Scan) {
        bench.console.status("measuring scan");
        figures.push(tokio::task::block_in_place(|| scan::measure(bench))?);
    }
    if names.contains(&Name::Workspace) {
        bench.console.status("measuring workspace");
        figures.extend(tokio::task::block_in_place(|| workspace::measure(bench))?);
    }
    if names.contains(&Name::Sandbox) {
        bench.console.status("measuring sandbox");
        figures.extend(Box::pin(sandbox::measure(bench)).await?);
    }
    Ok(figures)
}

fn word(name: Name) -> String {
    name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A connection a worker: more files than a process may open unless it asks.
fn raise_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it is refused, opening the sessions says so.
    let _refused = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// An error of the engine's own, met in this process.
fn engine(what: &str, error: impl Into<Error>) -> CliError {
    CliError::Engine { what: format!("cannot {what}"), status: Box::new(error.into().into()) }
}

/// What a task came to.
fn joined<T>(done: Result<T, JoinError>) -> Result<T, CliError> {
    done.map_err(|error| {
        CliError::refused("internal", "a part of the benchmark ended early", error.to_string(), "this is a bug")
    })
}

fn late(what: &str) -> CliError {
    let fix = "try again when the machine has less to do; -v shows more";
    CliError::refused("unavailable", format!("{what} did not happen"), "it took too long", fix)
}
