//! The faults, one after another, each while work is under way, and what they cost.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::site::Cluster;
use super::{now, until};

/// How long the cluster may take to have work under way again after a fault.
const AGAIN: Duration = Duration::from_secs(90);
/// How long a worker is frozen: longer than its own limit.
const FROZEN: Duration = Duration::from_secs(15);

/// A fault: what, when by the store's clock, and the run that it must have cost its lease.
pub(super) struct Hit {
    what: String,
    at: i64,
    cost: Option<String>,
}

/// A worker that has just begun something that takes a while, and the run.
struct Busy {
    at: usize,
    run: String,
}

/// All of them; before each, more runs are submitted, so that there is something to lose.
pub(super) fn happen(cluster: &mut Cluster, files: &[Value]) -> Vec<Hit> {
    let mut waves = files.chunks(4);
    let mut hits = Vec::new();
    let mut begin = |cluster: &Cluster| {
        for file in waves.next().unwrap() {
            // Said again, a submission attaches to the run that is there.
            assert!(until(AGAIN, || cluster.ann.submit(file).code == 0), "{file} cannot be submitted");
        }
        busy(cluster)
    };

    begin(cluster);
    let director = director(cluster);
    let at = cluster.supervisors.iter().position(|one| one.name == director).unwrap();
    hits.push(hit(cluster, format!("SIGKILL of the director {director}")));
    cluster.supervisors[at].kill();
    recovered(cluster, &hits);
    cluster.supervisors[at].revive();
    cluster.supervisors[at].is_up();

    let Busy { at, run } = begin(cluster);
    hits.push(Hit { cost: Some(run), ..hit(cluster, format!("SIGKILL of the worker w{}", at + 1)) });
    cluster.workers[at].kill();
    cluster.workers[at].revive();
    recovered(cluster, &hits);

    let Busy { at, run } = begin(cluster);
    hits.push(Hit { cost: Some(run), ..hit(cluster, format!("SIGSTOP of the worker w{} for {FROZEN:?}", at + 1)) });
    cluster.workers[at].freeze();
    let from = now();
    assert!(until(FROZEN * 2, || from.elapsed() >= FROZEN));
    cluster.workers[at].thaw();
    recovered(cluster, &hits);

    begin(cluster);
    let leader = cluster.etcd.leader();
    hits.push(hit(cluster, format!("SIGKILL of the etcd leader n{leader}")));
    cluster.etcd.end(leader);
    recovered(cluster, &hits);
    cluster.etcd.resume(leader);
    assert!(cluster.etcd.ready());

    begin(cluster);
    hits.push(hit(cluster, "immediate restart of PostgreSQL".to_owned()));
    cluster.postgres.restart(Signal::QUIT);
    hits
}

fn hit(cluster: &Cluster, what: String) -> Hit {
    Hit { what, cost: None, at: cluster.number("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint") }
}

/// Waits until a worker has just begun a command: whatever hits it now hits its work.
fn busy(cluster: &Cluster) -> Busy {
    let mut found = None;
    let query = "SELECT l.doc->>'worker', l.run_id FROM autopack.lease l JOIN autopack.phase p \
                 ON p.run_id = l.run_id AND p.id = l.doc->>'phase' WHERE l.state = 'held' \
                 AND l.doc->>'purpose' = 'build' AND p.doc::text LIKE '%\"argv\"%' \
                 AND (l.doc->>'granted_at')::timestamptz > clock_timestamp() - interval '0.7 s' LIMIT 1";
    let held = until(AGAIN, || {
        let held = cluster.sql(query);
        let named = held.first().and_then(|row| row.split_once('|'));
        found = named.and_then(|(worker, run)| {
            let at = cluster.workers.iter().position(|one| one.name == worker)?;
            Some(Busy { at, run: run.to_owned() })
        });
        found.is_some()
    });
    assert!(held, "nobody has work:\n{}", cluster.logs());
    found.unwrap()
}

/// Waits until something was granted after the last fault.
fn recovered(cluster: &Cluster, hits: &[Hit]) {
    let last = hits.last().unwrap();
    let granted = until(AGAIN, || next_grant(cluster, last).is_some());
    assert!(granted, "nothing is granted after {}:\n{}", last.what, cluster.logs());
}

/// Milliseconds from a fault to the next grant, of the run it cost its lease where there is one.
fn next_grant(cluster: &Cluster, hit: &Hit) -> Option<i64> {
    let granted = "(extract(epoch FROM (doc->>'granted_at')::timestamptz) * 1000)::bigint";
    let of = hit.cost.as_ref().map_or_else(String::new, |run| format!("AND run_id = '{run}'"));
    let query = format!("SELECT min({granted}) FROM autopack.lease WHERE {granted} > {} {of}", hit.at);
    Some(cluster.sql(&query).first()?.parse::<i64>().ok()? - hit.at)
}

/// Who directs.
pub(super) fn director(cluster: &Cluster) -> String {
    let mut found = None;
    let told = until(AGAIN, || {
        let keys = cluster.etcd_keys("/autopack/v1/autopack/director");
        let value: Option<Value> = keys.first().map(|(_, value)| serde_json::from_str(value).unwrap());
        found = value.and_then(|value| Some(value["replica_id"].as_str()?.to_owned()));
        found.is_some()
    });
    assert!(told, "nobody directs");
    found.unwrap()
}

/// Prints how long each fault took to the next grant, and that what had to be lost was lost.
pub(super) fn tell(cluster: &Cluster, hits: &[Hit]) {
    for hit in hits {
        if let Some(run) = &hit.cost {
            let lost = format!("SELECT count(*) FROM autopack.lease WHERE run_id = '{run}' AND state = 'expired'");
            assert!(cluster.number(&lost) > 0, "{} cost {run} nothing", hit.what);
        }
        let ms = next_grant(cluster, hit).map_or_else(|| "none was left".to_owned(), |ms| format!("after {ms} ms"));
        println!("  {}: next grant {ms} {}", hit.what, hit.cost.as_deref().unwrap_or_default());
    }
    let ended = "SELECT coalesce(doc->>'reason', 'done'), state, count(*) FROM autopack.lease GROUP BY 1, 2 ORDER BY 3";
    println!("how the leases ended: {:?}", cluster.sql(ended));
}
