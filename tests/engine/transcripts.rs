//! What builders print: kept whole or by both ends, without secrets, under a digest that the attempt names.

use serde_json::json;

use autopack_shared::domain::ids::Digest;
use autopack_shared::wire::pb::{self, transcript_part};
use autopack_supervisor::director::{Governing, Retention};

use super::harness::{Rig, Site, reason};

async fn transcript(rig: &mut Rig, run: &str, attempt: u32) -> Result<(pb::TranscriptHead, String), tonic::Status> {
    let call = pb::TranscriptRequest { run_id: run.into(), phase_id: "p".into(), attempt, gate: String::new() };
    let mut parts = rig.runs.transcript(call).await?.into_inner();
    let (mut head, mut body) = (pb::TranscriptHead::default(), Vec::new());
    while let Some(part) = parts.message().await? {
        match part.body.unwrap() {
            transcript_part::Body::Head(told) => head = told,
            transcript_part::Body::Data(data) => body.extend(data),
        }
    }
    assert_eq!(head.digest, Digest::of(&body).to_string());
    Ok((head, String::from_utf8(body).unwrap()))
}

/// Its second attempt prints more than is kept, and more than is told.
const SCRIPT: &str = r#"t=ghp_; t="${t}a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8"
printf 'my token is %s' "${t%?????????}"; sleep 0.3; echo "${t#???????????????????????????????}."
echo oops >&2
if [ "$AUTOPACK_ATTEMPT" = 1 ]; then exit 3; fi
yes 'and so on, and so on' | head -n 100000; echo the end; echo x >> examples/a.txt"#;

#[tokio::test]
async fn what_builders_print_is_kept_for_each_attempt() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("loud", &[("p", SCRIPT, json!({ "max_attempts": 2 }))]).await;
    rig.submit("quiet", &[("p", "echo x >> examples/b.txt", json!({}))]).await;
    let asks = |r: &pb::Run| r.phases[0].state == "APPROVAL_PENDING";
    let loud = rig.until("loud", "a request", asks).await;
    let quiet = rig.until("quiet", "a request", asks).await;

    let (first, text) = transcript(&mut rig, "loud", 1).await.unwrap();
    assert_eq!((first.attempt, text.as_str()), (1, "my token is ghp_...[40 characters].\noops\n"));
    let (newest, text) = transcript(&mut rig, "loud", 0).await.unwrap();
    assert_eq!((newest.attempt, &newest.digest), (2, &loud.phases[0].transcript));
    assert!(text.starts_with("my token is ghp_...[40 characters].\n") && text.ends_with("so on\nthe end\n"));
    assert!(text.contains(" bytes are left out here ...]\n") && text.len() < (1 << 20) + 1000, "{}", text.len());

    assert_eq!(quiet.phases[0].transcript, "");
    for (run, attempt) in [("quiet", 0), ("loud", 3), ("nobody", 0)] {
        let refused = transcript(&mut rig, run, attempt).await.unwrap_err();
        assert_eq!(reason(&refused).to_lowercase(), "not_found", "{run}: {refused}");
    }
    let told: Vec<String> = rig.history("loud").await.into_iter().filter(|l| l.starts_with("worker.builder")).collect();
    assert!(told.iter().any(|line| line.contains("and so on")) && !told.iter().any(|line| line.contains("a1B2c3")));
    let bytes: usize = told.iter().map(String::len).sum();
    assert!(bytes < 400_000 && told.iter().any(|line| line.contains("bytes more were printed")), "{bytes}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn what_no_decision_names_goes_where_there_is_too_much() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("lost", &[("p", "echo nothing came of it; exit 3", json!({ "max_attempts": 1 }))]).await;
    rig.submit("judged", &[("p", "echo somebody judged it; echo x >> docs/guide.md", json!({}))]).await;
    rig.until_state("lost", "FAILED").await;
    rig.until("judged", "a request", |r| r.phases[0].state == "APPROVAL_PENDING").await;
    rig.steer("judged", pb::SteerOp::Cancel).await;
    rig.until_state("judged", "CANCELLED").await;
    let (kept, _) = transcript(&mut rig, "lost", 1).await.unwrap();
    rig.close().await;

    let retention = Retention { days: 0, bytes: 1 };
    let mut rig = Rig::governed_with_worker(&site, Governing { retention, ..Governing::default() }).await;
    let mut refused = None;
    for _ in 0..200 {
        refused = transcript(&mut rig, "lost", 1).await.err();
        if refused.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let refused = refused.expect("it is still there");
    assert!(refused.message().contains("limits.transcript_days"), "{refused}");
    let lost = rig.run("lost").await;
    assert_eq!(lost.phases[0].attempts[0].transcript, kept.digest, "the record keeps its digest");
    let (_, text) = transcript(&mut rig, "judged", 0).await.unwrap();
    assert_eq!(text, "somebody judged it\n", "its decision names it");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn who_has_no_lease_is_refused_before_anything_is_taken() {
    use tokio_stream::StreamExt as _;
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("quiet", &[("p", "true", json!({}))]).await;
    let header = pb::TranscriptHeader {
        worker_id: "embedded".to_owned(),
        session: "s".to_owned(),
        run_id: "quiet".to_owned(),
        epoch: 99,
        phase_id: "p".to_owned(),
        attempt: 1,
        size: 1 << 20,
        digest: Digest::of(b"").to_string(),
    };
    let header = pb::TranscriptChunk { body: Some(pb::transcript_chunk::Body::Header(header)) };
    // Its bytes never come.
    let chunks = tokio_stream::iter([header]).chain(tokio_stream::pending());
    let refused = tokio::time::timeout(std::time::Duration::from_secs(20), rig.workers.upload_transcript(chunks));
    let refused = refused.await.expect("nobody waits for its bytes").unwrap_err();
    assert_eq!(reason(&refused), "FENCED", "{refused}");
    rig.close().await;
}
