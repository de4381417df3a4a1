//! Scans by a worker: what an engine makes of what a worker answers, also of one that is not to be trusted.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use autopack_shared::domain::survey::MAX_REPORT;
use autopack_shared::runtime::clock::SystemClock;
use autopack_shared::wire::PROTOCOL;
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};

use super::harness::{Rig, Site, reason};

/// A worker that does whatever it likes.
struct Stranger {
    out: mpsc::Sender<pb::WorkerMessage>,
    inbox: Streaming<pb::SupervisorMessage>,
    client: WorkerServiceClient<tonic::transport::Channel>,
}

impl Stranger {
    async fn connect(rig: &Rig) -> Self {
        let (out, outbox) = mpsc::channel(16);
        let hello = pb::Hello {
            worker_id: "stranger".into(),
            session: "s".into(),
            boot_id: "b".into(),
            protocol: PROTOCOL,
            slots: 1,
            sandbox_level: "S3".into(),
            held: Vec::new(),
            sandbox: None,
        };
        let mut client = WorkerServiceClient::new(rig.channel.clone());
        let mut stranger = Self {
            out,
            inbox: {
                let hello = pb::WorkerMessage { seq: 1, body: Some(worker_message::Body::Hello(hello)) };
                let stream = tokio_stream::once(hello);
                let rest = ReceiverStream::new(outbox);
                client.session(tokio_stream::StreamExt::chain(stream, rest)).await.unwrap().into_inner()
            },
            client,
        };
        // Its session is open once it is welcome; it gets work once it says that it stays.
        assert!(matches!(stranger.next().await, supervisor_message::Body::Welcome(_)));
        let body = Some(worker_message::Body::Heartbeat(pb::Heartbeat::default()));
        stranger.out.send(pb::WorkerMessage { seq: 2, body }).await.unwrap();
        stranger
    }

    async fn next(&mut self) -> supervisor_message::Body {
        let next = tokio::time::timeout(std::time::Duration::from_secs(60), self.inbox.message()).await;
        next.expect("in time").unwrap().unwrap().body.unwrap()
    }

    /// The next scan that is asked of it.
    async fn order(&mut self) -> pb::ScanOrder {
        loop {
            if let supervisor_message::Body::Scan(order) = self.next().await {
                return order;
            }
        }
    }

    async fn answer(&self, survey_id: &str, report: String) {
        let result =
            pb::ScanResult { survey_id: survey_id.to_owned(), report_json: report, ..pb::ScanResult::default() };
        let body = Some(worker_message::Body::Scan(result));
        self.out.send(pb::WorkerMessage { seq: 3, body }).await.unwrap();
    }
}

fn ask(deep: bool) -> pb::SurveyRequest {
    pb::SurveyRequest { run_id: "look".into(), deep, ..pb::SurveyRequest::default() }
}

fn empty_report() -> Value {
    json!({ "format_version": "v1", "project_id": "another", "run_id": "other", "generated_at": "2020-01-01T00:00:00Z" })
}

#[tokio::test]
async fn an_embedded_worker_scans_the_commit() {
    let site = Site::new("");
    site.write("NOTES.md", "a note\n");
    site.commit("clutter");
    site.write("MORE.md", "not committed\n");
    let mut rig = Rig::open(&site).await;
    // Its session comes a moment after the engine.
    let answer = loop {
        match rig.runs.plan(ask(false)).await {
            Ok(answer) => break answer.into_inner(),
            Err(status) => assert_eq!(reason(&status), "NO_WORKER", "{status}"),
        }
    };
    let report: Value = serde_json::from_str(&answer.report_json).unwrap();
    let paths = report["gaps"].to_string();
    assert!(paths.contains("NOTES.md") && !paths.contains("MORE.md"), "{report:#}");
    let plan: Value = serde_json::from_str(&answer.plan_json).unwrap();
    assert_eq!((&plan["run_id"], &plan["project_id"]), (&json!("look"), &json!("site")));
    rig.close().await;
}

#[tokio::test]
async fn what_a_hostile_worker_answers_is_no_report() {
    let site = Site::new("");
    let rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let nobody = rig.runs.clone().gaps(ask(false)).await.unwrap_err();
    assert_eq!((nobody.code(), reason(&nobody).as_str()), (Code::Unavailable, "NO_WORKER"));
    let mut stranger = Stranger::connect(&rig).await;
    let mut runs = rig.runs.clone();
    let waits = async move { runs.gaps(ask(false)).await };
    let lies = async {
        // The first would be a report, if it were not so large.
        let large = format!("{}{}", empty_report(), " ".repeat(MAX_REPORT));
        for lie in [large, "{\"format_version\":\"v1\",\"x\":1}".to_owned(), "[]".to_owned()] {
            let order = stranger.order().await;
            stranger.answer("survey-of-nobody", empty_report().to_string()).await;
            stranger.answer(&order.survey_id, lie).await;
        }
    };
    let (answer, ()) = tokio::join!(waits, lies);
    let refused = answer.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "SCAN_FAILED"), "{refused}");
    assert!(refused.message().contains("malformed"), "{refused}");

    let mut runs = rig.runs.clone();
    let waits = async move { runs.gaps(ask(true)).await };
    let truth = async {
        let order = stranger.order().await;
        let fetch = |survey: &str, session: &str, commit: &str| pb::FetchRequest {
            worker_id: "stranger".into(),
            session: session.to_owned(),
            survey_id: survey.to_owned(),
            commit: commit.to_owned(),
            ..pb::FetchRequest::default()
        };
        for (survey, session, commit) in [
            ("survey-of-nobody", "s", order.commit.as_str()),
            (&order.survey_id, "another", &order.commit),
            (&order.survey_id, "s", "0123456789012345678901234567890123456789"),
        ] {
            let refused = stranger.client.fetch_objects(fetch(survey, session, commit)).await.unwrap_err();
            assert_eq!(reason(&refused), "SURVEY_NOT_YOURS", "{refused}");
        }
        stranger.client.fetch_objects(fetch(&order.survey_id, "s", &order.commit)).await.unwrap();
        stranger.answer(&order.survey_id, empty_report().to_string()).await;
    };
    let (answer, ()) = tokio::join!(waits, truth);
    let report: Value = serde_json::from_str(&answer.unwrap().into_inner().report_json).unwrap();
    assert_eq!((&report["project_id"], &report["run_id"]), (&json!("site"), &json!("look")), "whatever it says");
    // Asked again, it is not scanned again.
    let mut runs = rig.runs.clone();
    runs.gaps(ask(true)).await.unwrap();
    rig.close().await;
}
