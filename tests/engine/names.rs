//! Run ids and other names at the boundary itself, past the command line: whatever names nothing that can be, is refused
//! with the same reason everywhere (`threats.md` T103), and a session that is not the one is no way in (T100).

use std::sync::Arc;

use serde_json::json;

use autopack_shared::runtime::clock::SystemClock;
use autopack_shared::wire::PROTOCOL;
use autopack_shared::wire::pb::{self, SteerOp, upload_chunk, worker_message};

use super::hand::{Hand, NAME};
use super::harness::{Rig, Site, reason};

fn hostile() -> Vec<String> {
    let texts = [
        "",
        ".",
        "..",
        "../../x",
        "a/b",
        "a\\b",
        "/a",
        "A",
        "a b",
        "a\0b",
        "a\nb",
        "é",
        "🚀",
        "a..b",
        "a.",
        "a.lock",
        ".a",
        "-a",
        "_a",
        "a:b",
        "refs/heads/main",
        "a~1",
        "a^",
        "a@{0}",
        "a*",
        "a?",
        "%2e%2e",
        "a;rm",
        "locks",
    ];
    texts.iter().map(ToString::to_string).chain(["x".repeat(64), "x".repeat(300)]).collect()
}

/// A name that a run can have.
const UNKNOWN: &str = "con";

/// The reasons of every call that takes a run's id.
async fn refusals(rig: &mut Rig, id: &str) -> Vec<(&'static str, String)> {
    let run_id = || id.to_owned();
    let (run, admin) = (&mut rig.runs, &mut rig.admin);
    let mut all = Vec::new();
    let mut keep = |what, refused: Option<tonic::Status>| {
        all.push((what, refused.map_or_else(|| "accepted".to_owned(), |status| reason(&status))));
    };
    let phases = json!([{ "id": "p", "goal": "g", "builder": { "kind": "patch", "diff": "" } }]);
    let file = json!({ "run_id": id, "phases": phases }).to_string();
    if !id.is_empty() && id != UNKNOWN {
        keep("submit", run.submit(pb::SubmitRequest { run_file_json: file, ..Default::default() }).await.err());
    }
    keep("get", run.get(pb::GetRunRequest { run_id: run_id() }).await.err());
    keep("explain", run.explain(pb::GetRunRequest { run_id: run_id() }).await.err());
    keep("watch", run.watch(pb::WatchRequest { run_id: run_id(), after_seq: 0, once: true }).await.err());
    keep("diff", run.diff(pb::DiffRequest { run_id: run_id(), ..Default::default() }).await.err());
    let steer = pb::SteerRequest { run_id: run_id(), op: SteerOp::Cancel.into(), ..Default::default() };
    keep("steer", run.steer(steer).await.err());
    keep("land", run.land(pb::LandRequest { run_id: run_id(), ..Default::default() }).await.err());
    let broken = pb::BreakLeaseRequest { run_id: run_id(), reason: "x".to_owned(), ..Default::default() };
    keep("break", admin.break_lease(broken).await.err());
    if !id.is_empty() {
        // Nothing there stands for all.
        keep("leases", admin.leases(pb::LeasesRequest { all: true, run_id: run_id() }).await.err());
        keep("savepoints", run.save_points(pb::SavePointsRequest { run_id: run_id() }).await.err());
    }
    let header = pb::UploadHeader { run_id: run_id(), phase_id: "p".to_owned(), epoch: 1, ..Default::default() };
    let upload = pb::UploadChunk { body: Some(upload_chunk::Body::Header(header)) };
    keep("upload", rig.workers.upload_objects(tokio_stream::iter([upload])).await.err());
    let fetch = pb::FetchRequest { run_id: run_id(), commit: "0".repeat(40), epoch: 1, ..Default::default() };
    keep("fetch", rig.workers.fetch_objects(fetch).await.err());
    all
}

#[tokio::test]
async fn what_cannot_be_a_run_is_refused_at_every_call() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let mut wrong = Vec::new();
    for id in hostile() {
        for (call, reason) in refusals(&mut rig, &id).await {
            if reason != "INVALID" {
                wrong.push(format!("{call} {id:?}: {reason}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A name that could be one is merely unknown.
    for (call, reason) in refusals(&mut rig, UNKNOWN).await {
        let wanted = match call {
            "upload" | "fetch" => "FENCED",
            _ => "NOT_FOUND",
        };
        assert_eq!(reason, wanted, "{call}");
    }
    let runs = rig.runs.list(pb::ListRunsRequest::default()).await.unwrap().into_inner().runs;
    assert!(runs.is_empty(), "{runs:?}");
    let left = std::fs::read_dir(site.dir.path()).unwrap().count();
    assert_eq!(left, 3, "repository, data, worker: nothing was made beside them");
    rig.close().await;
}

#[tokio::test]
async fn who_says_hello_as_something_else_does_not_come_in() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let hello = |worker_id: &str, protocol| pb::Hello {
        worker_id: worker_id.to_owned(),
        session: "s".to_owned(),
        protocol,
        slots: 1,
        ..Default::default()
    };
    let said = async |rig: &mut Rig, body| {
        let first = tokio_stream::iter([pb::WorkerMessage { seq: 1, body }]);
        reason(&rig.workers.session(first).await.unwrap_err())
    };
    for id in ["", "../w", "W", "a/b", "é", "w\n"] {
        let hello = worker_message::Body::Hello(hello(id, PROTOCOL));
        assert_eq!(said(&mut rig, Some(hello)).await, "INVALID", "{id:?}");
    }
    assert_eq!(said(&mut rig, Some(worker_message::Body::Hello(hello("w", PROTOCOL + 1)))).await, "VERSION");
    assert_eq!(said(&mut rig, Some(worker_message::Body::Goodbye(pb::Goodbye {}))).await, "INVALID");
    assert_eq!(said(&mut rig, None).await, "INVALID");

    // A name that is taken, and a lease under a session that is another's.
    let mut hand = Hand::open(&mut rig).await;
    assert_eq!(said(&mut rig, Some(worker_message::Body::Hello(hello(NAME, PROTOCOL)))).await, "RUN_LOCKED");
    rig.submit("mine", &[("p", "true", json!({}))]).await;
    let grant = hand.granted().await;
    for (worker, session) in [(NAME, "s-yesterday"), ("other", "s-hand")] {
        let fetch = pb::FetchRequest {
            worker_id: worker.to_owned(),
            session: session.to_owned(),
            run_id: grant.run_id.clone(),
            epoch: grant.epoch,
            commit: grant.base.clone(),
            ..Default::default()
        };
        assert_eq!(reason(&rig.workers.fetch_objects(fetch).await.unwrap_err()), "LEASE_NOT_YOURS");
    }
    rig.close().await;
}
