//! The faults, one after another, each while work is under way, and what they cost.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::site::Cluster;
use super::{LOOK, now, until};

/// How long the cluster may take to have work under way again after a fault.
const AGAIN: Duration = Duration::from_secs(90);
/// How long a worker is frozen: longer than its own limit.
const FROZEN: Duration = Duration::from_secs(15);

/// A fault: what, and when by the store's clock.
pub(super) struct Hit {
    what: String,
    at: i64,
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
        holder(cluster)
    };

    begin(cluster);
    let director = director(cluster);
    let at = cluster.supervisors.iter().position(|one| one.name == director).unwrap();
    hits.push(hit(cluster, format!("SIGKILL of the director {director}")));
    cluster.supervisors[at].kill();
    recovered(cluster, &hits);
    cluster.supervisors[at].revive();
    cluster.supervisors[at].is_up();

    let at = begin(cluster);
    hits.push(hit(cluster, format!("SIGKILL of the worker w{}", at + 1)));
    cluster.workers[at].kill();
    cluster.workers[at].revive();
    recovered(cluster, &hits);

    let at = begin(cluster);
    hits.push(hit(cluster, format!("SIGSTOP of the worker w{} for {FROZEN:?}", at + 1)));
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
    Hit { what, at: cluster.number("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint") }
}

/// Waits until a worker holds a lease; which one.
fn holder(cluster: &Cluster) -> usize {
    let mut found = None;
    let query = "SELECT doc->>'worker' FROM autopack.lease WHERE state = 'held' ORDER BY seq DESC LIMIT 1";
    let held = until(AGAIN, || {
        let held = cluster.sql(query);
        found = cluster.workers.iter().position(|one| held.first() == Some(&one.name));
        found.is_some()
    });
    assert!(held, "nobody holds a lease:\n{}", cluster.logs());
    found.unwrap()
}

/// Waits until something was granted after the last fault.
fn recovered(cluster: &Cluster, hits: &[Hit]) {
    let last = hits.last().unwrap();
    let granted = until(AGAIN, || next_grant(cluster, last).is_some());
    assert!(granted, "nothing is granted after {}:\n{}", last.what, cluster.logs());
}

/// Milliseconds from a fault to the next grant.
fn next_grant(cluster: &Cluster, hit: &Hit) -> Option<i64> {
    let granted = "(extract(epoch FROM (doc->>'granted_at')::timestamptz) * 1000)::bigint";
    let first = cluster.sql(&format!("SELECT min({granted}) FROM autopack.lease WHERE {granted} > {}", hit.at));
    Some(first.first()?.parse::<i64>().ok()? - hit.at)
}

/// Who directs.
fn director(cluster: &Cluster) -> String {
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

/// Prints the faults, and how long each took to the next grant.
pub(super) fn tell(cluster: &Cluster, hits: &[Hit]) {
    println!("{} faults, looked at every {LOOK:?}:", hits.len());
    for hit in hits {
        match next_grant(cluster, hit) {
            Some(ms) => println!("  {}: next grant after {:.1} s", hit.what, ms as f64 / 1000.0),
            None => println!("  {}: nothing was left to grant", hit.what),
        }
    }
    let ended =
        "SELECT coalesce(doc->>'reason', 'done'), state, count(*) FROM autopack.lease GROUP BY 1, 2 ORDER BY 3 DESC";
    println!("how the leases ended: {:#?}", cluster.sql(ended));
}
