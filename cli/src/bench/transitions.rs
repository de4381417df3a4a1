//! `transitions`: moves of runs along their table, each with fence, row, history and audit record in one transaction;
//! beside bare commits of the same server.

use std::sync::Arc;

use tokio::time::Instant;

use autopack_supervisor::drill::Drill;
use autopack_supervisor::error::Error;
use autopack_supervisor::store::Store;
use autopack_supervisor::store::postgres::floor::PostgresFloor;
use autopack_supervisor::store::postgres::{PostgresConfig, PostgresStore};

use super::cluster::Cluster;
use super::grants::ASKING;
use super::report::{Aim, Better, Figure, Floor};
use super::stats::Sample;
use super::{Bench, engine};
use crate::exit::CliError;

/// The database of its own.
const DATABASE: &str = "drill";
/// What each of many clients does, and what one alone does.
const EACH: (u32, u32) = (64, 256);

/// Measures it with many clients, and with one.
pub(super) async fn measure(bench: &Bench<'_>, cluster: &Cluster) -> Result<Vec<Figure>, CliError> {
    let failed = |error: Error| engine("measure transitions", error);
    let config =
        |database: &str| PostgresConfig { connections: ASKING, ..PostgresConfig::new(cluster.postgres.url(database)) };
    let floor = PostgresFloor::open(&config("postgres")).await.map_err(|error| failed(error.into()))?;
    floor.make_database(DATABASE).await.map_err(|error| failed(error.into()))?;
    let store = PostgresStore::open(&config(DATABASE), bench.ctx.ids.clone()).await;
    let store: Arc<dyn Store> = Arc::new(store.map_err(|error| failed(error.into()))?);
    let drill = Drill::prepare(store.clone(), ASKING).await.map_err(failed)?;
    let mut figures = Vec::new();
    for (name, clients, each, aim) in
        [("transitions", ASKING, EACH.0, Some(Aim::Ratio(2.0))), ("transitions-1", 1, EACH.1, None)]
    {
        let (mut ours, mut commits) = (Sample::default(), Sample::default());
        for round in 0..=bench.repeat() {
            let from = Instant::now();
            floor.commits(clients, each).await.map_err(|error| failed(error.into()))?;
            let committed = from.elapsed();
            let from = Instant::now();
            drill.transitions(clients as usize, each).await.map_err(failed)?;
            let moved = from.elapsed();
            if round > 0 {
                commits.add_rate(clients * each, committed);
                ours.add_rate(clients * each, moved);
                bench.say(&format!("{name} {round}: {:.0} a second", f64::from(clients * each) / moved.as_secs_f64()));
            }
        }
        let what = if clients == 1 { "one client".to_owned() } else { format!("{clients} clients") };
        figures.push(Figure {
            name,
            what: format!("{what}: fence, row, history and audit record in a transaction"),
            unit: "/s",
            better: Better::More,
            measured: ours,
            floors: vec![Floor { what: "commits of PostgreSQL", sample: commits }],
            aim,
        });
    }
    store.close().await;
    floor.close().await;
    Ok(figures)
}
