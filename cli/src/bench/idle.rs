//! `idle`: what workers that have nothing to do cost a supervisor, and whether they make anybody write to PostgreSQL.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use autopack_supervisor::store::postgres::PostgresConfig;
use autopack_supervisor::store::postgres::floor::PostgresFloor;

use super::cluster::{Cluster, Who};
use super::report::{Aim, Better, Figure};
use super::stand_in::StandIn;
use super::stats::Sample;
use super::{Bench, engine, joined};
use crate::exit::{CliError, During as _};

/// How long they are watched, and how long they settle before.
const WINDOW: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(5);
/// What Linux counts processor time in, towards programs.
const TICK_MS: u64 = 10;
/// Sessions that are opened at once.
const AT_ONCE: usize = 32;

/// Measures it: memory, share of a core, transactions that write.
pub(super) async fn measure(bench: &Bench<'_>, cluster: &Cluster) -> Result<Vec<Figure>, CliError> {
    let failed = |error| engine("count transactions", error);
    let config = PostgresConfig { connections: 1, ..PostgresConfig::new(cluster.postgres.url("postgres")) };
    let postgres = PostgresFloor::open(&config).await.map_err(failed)?;
    let alone = memory(cluster.supervisor())?;
    let workers = bench.workers();
    let mut sessions = open_all(bench, cluster, workers).await?;
    tokio::time::sleep(if bench.quick() { SETTLE / 5 } else { SETTLE }).await;
    let (mut share, mut resident, mut writes) = (Sample::default(), Sample::default(), Sample::default());
    let window = if bench.quick() { WINDOW / 10 } else { WINDOW };
    for _ in 0..bench.repeat().min(3) {
        let (before, spent, from) =
            (postgres.writers().await.map_err(failed)?, cpu(cluster.supervisor())?, Instant::now());
        tokio::time::sleep(window).await;
        let used = cpu(cluster.supervisor())?.saturating_sub(spent);
        share.add(100.0 * used.as_secs_f64() / from.elapsed().as_secs_f64());
        resident.add(memory(cluster.supervisor())?);
        writes.add((postgres.writers().await.map_err(failed)? - before) as f64);
    }
    // One that ended early would have cost nothing.
    let ended = sessions.try_join_next();
    if let Some(ended) = ended {
        joined(ended)??;
    }
    sessions.shutdown().await;
    postgres.close().await;
    let of = |name, what: String, unit, measured, most| Figure {
        name,
        what,
        unit,
        better: Better::Less,
        measured,
        floors: Vec::new(),
        aim: Some(Aim::AtMost(most)),
    };
    Ok(vec![
        of(
            "idle-memory",
            format!("supervisor with {workers} idle workers, {alone:.0} MB alone"),
            "MB",
            resident,
            200.0,
        ),
        of("idle-cpu", format!("share of a core with {workers} idle workers"), "%", share, 10.0),
        of("idle-writes", format!("transactions that wrote in {} s", window.as_secs()), "", writes, 0.0),
    ])
}

/// Opens a session for each worker, some at a time.
async fn open_all(
    bench: &Bench<'_>,
    cluster: &Cluster,
    workers: u32,
) -> Result<JoinSet<Result<(), CliError>>, CliError> {
    let (mut sessions, mut opening) = (JoinSet::new(), JoinSet::new());
    let from = Instant::now();
    for n in 0..workers {
        while opening.len() >= AT_ONCE {
            if let Some(opened) = opening.join_next().await {
                sessions.spawn(stay(joined(opened)??));
            }
        }
        let (wire, session) = (cluster.wire(Who::Worker).await?, bench.fresh("session"));
        opening.spawn(async move { StandIn::open(wire, &format!("idle-{n}"), session, 2).await });
    }
    while let Some(opened) = opening.join_next().await {
        sessions.spawn(stay(joined(opened)??));
    }
    bench.say(&format!("idle: {workers} sessions after {:.1} s", from.elapsed().as_secs_f64()));
    Ok(sessions)
}

/// Beats until the stream breaks.
async fn stay(mut worker: StandIn) -> Result<(), CliError> {
    loop {
        worker.next().await?;
    }
}

/// Resident memory of a process, in megabytes.
fn memory(pid: u32) -> Result<f64, CliError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).during("look at the supervisor")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(f64::NAN);
    Ok(kilobytes / 1000.0 * 1.024)
}

/// Processor time that a process has used.
fn cpu(pid: u32) -> Result<Duration, CliError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).during("look at the supervisor")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * TICK_MS))
}
