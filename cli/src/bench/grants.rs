//! `grants`: runs that all wait for a worker, and how many of them a second are granted once there are some; beside bare
//! lock transactions of etcd and bare commits of PostgreSQL.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use autopack_shared::wire::pb::{ListRunsRequest, SubmitRequest};
use autopack_supervisor::coordination::etcd::floor::EtcdFloor;
use autopack_supervisor::store::postgres::PostgresConfig;
use autopack_supervisor::store::postgres::floor::PostgresFloor;

use super::cluster::{Cluster, Person, Who};
use super::report::{Aim, Better, Figure, Floor};
use super::stand_in::{News, StandIn};
use super::stats::Sample;
use super::{Bench, engine, joined, late};
use crate::exit::{CliError, During as _};

/// Who asks at once, and clients of the floors.
pub(super) const ASKING: u32 = 64;
/// What each client of a floor does.
const EACH: u32 = 16;
/// Sessions, and slots of each: enough for all.
const SESSIONS: (u32, u32) = (8, 8);
/// How long all of one round may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Measures it.
pub(super) async fn measure(bench: &Bench<'_>, cluster: &Cluster) -> Result<Figure, CliError> {
    let config = PostgresConfig { connections: ASKING, ..PostgresConfig::new(cluster.postgres.url("postgres")) };
    let postgres = PostgresFloor::open(&config).await.map_err(|error| engine("measure commits", error))?;
    let endpoints = [cluster.etcd.url().to_owned()];
    let etcd = EtcdFloor::connect(&endpoints).await.map_err(|error| engine("measure locks", error))?;
    let author = cluster.person(Who::Author).await?;
    let (mut ours, mut commits, mut locks) = (Sample::default(), Sample::default(), Sample::default());
    // The first round warms everything up.
    for round in 0..=bench.repeat() {
        let from = Instant::now();
        postgres.commits(ASKING, EACH).await.map_err(|error| engine("measure commits", error))?;
        let committed = from.elapsed();
        let from = Instant::now();
        etcd.locks(ASKING, EACH).await.map_err(|error| engine("measure locks", error))?;
        let locked = from.elapsed();
        let granted =
            timeout(PATIENCE, one_round(bench, cluster, &author, round)).await.map_err(|_| late("grants"))??;
        if round > 0 {
            commits.add_rate(ASKING * EACH, committed);
            locks.add_rate(ASKING * EACH, locked);
            ours.add_rate(ASKING, granted);
            bench.say(&format!("grants {round}: {:.1} a second", f64::from(ASKING) / granted.as_secs_f64()));
        }
    }
    postgres.close().await;
    Ok(Figure {
        name: "grants",
        what: format!("{ASKING} runs ask at once: gate, lease, fence, etcd keys, told to the worker"),
        unit: "/s",
        better: Better::More,
        measured: ours,
        floors: vec![
            Floor { what: "commits of PostgreSQL", sample: commits },
            Floor { what: "lock transactions of etcd", sample: locks },
        ],
        aim: Some(Aim::Ratio(3.0)),
    })
}

/// From the first hello of a session to the last grant.
async fn one_round(bench: &Bench<'_>, cluster: &Cluster, author: &Person, round: u32) -> Result<Duration, CliError> {
    let mut submitting = JoinSet::new();
    for n in 0..ASKING {
        let (mut author, call) = (author.clone(), submission(bench, &format!("grant-{round}-{n}")));
        submitting.spawn(async move { author.runs.submit(call).await.during("submit a run") });
    }
    while let Some(done) = submitting.join_next().await {
        joined(done)??;
    }
    until_queued(author).await?;
    let (told, mut news) = mpsc::channel(ASKING as usize);
    let mut wires = Vec::new();
    for _ in 0..SESSIONS.0 {
        wires.push(cluster.wire(Who::Worker).await?);
    }
    let mut sessions = JoinSet::new();
    for (n, wire) in wires.into_iter().enumerate() {
        let name = format!("stand-in-{n}");
        sessions.spawn(serve(wire, name, bench.fresh("session"), told.clone()));
    }
    drop(told);
    let (mut first, mut last) = (None::<Instant>, Instant::now());
    for _ in 0..ASKING {
        let Some((greeted, granted)) = news.recv().await else { break };
        first = Some(first.map_or(greeted, |first| first.min(greeted)));
        last = last.max(granted);
    }
    let took = last.saturating_duration_since(first.unwrap_or(last));
    while let Some(done) = sessions.join_next().await {
        joined(done)??;
    }
    Ok(took)
}

/// Takes its grants, tells when each came, then ends them all as failed and leaves.
async fn serve(
    wire: crate::connect::Wire,
    name: String,
    session: String,
    told: mpsc::Sender<(Instant, Instant)>,
) -> Result<(), CliError> {
    let mut worker = StandIn::open(wire, &name, session, SESSIONS.1).await?;
    let mut grants = Vec::new();
    while grants.len() < SESSIONS.1 as usize {
        if let News::Granted(grant) = worker.next().await? {
            let _closed = told.send((worker.greeted, Instant::now())).await;
            grants.push(grant);
        }
    }
    grants.iter().try_for_each(|grant| worker.fail(grant))?;
    for _ in &grants {
        while !matches!(worker.next().await?, News::Taken) {}
    }
    worker.leave().await
}

async fn until_queued(author: &Person) -> Result<(), CliError> {
    loop {
        let call = ListRunsRequest { states: vec!["CREATED".to_owned()], limit: 1 };
        let created = author.runs.clone().list(call).await.during("list the runs")?.into_inner();
        if created.runs.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A run with a scope of its own that gives up after its first failure.
fn submission(bench: &Bench<'_>, run: &str) -> SubmitRequest {
    let path = format!("examples/{run}.md");
    let diff = format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{run}\n");
    let phase = json!({
        "id": "one", "goal": format!("add {path}"), "category": "documentation", "scope": { "paths": [path] },
        "builder": { "kind": "patch", "diff": diff }, "max_attempts": 1,
    });
    SubmitRequest {
        idempotency_key: bench.fresh("submit"),
        run_file_json: json!({ "run_id": run, "phases": [phase] }).to_string(),
        ..SubmitRequest::default()
    }
}
