//! Transcripts: kept once under their digest, for their run, under its fence, and for good.

use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::state::RunState;
use autopack_supervisor::store::transcripts::DueTranscript;

use crate::fixtures::*;
use crate::lab::Lab;

pub(crate) async fn a_transcript_is_kept_once_for_its_run(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let body = b"line\n\x00\xff not text\n".to_vec();
    let digest = Digest::of(&body);
    let mut tx = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
    tx.keep_transcript(&name("a"), &digest, &body).await.unwrap();
    tx.keep_transcript(&name("a"), &digest, &body).await.unwrap();
    assert!(tx.has_transcript(&name("a"), &digest).await.unwrap());
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.transcript(&name("a"), &digest).await.unwrap(), Some(body));
    assert_eq!(view.transcript(&name("b"), &digest).await.unwrap(), None, "its digest opens nobody else's");
    assert!(!view.has_transcript(&name("a"), &Digest::of(b"another")).await.unwrap());
}

pub(crate) async fn a_transcript_needs_its_runs_fence(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let digest = Digest::of(b"x");
    let mut tx = lab.store().tx(&[run_fence("b", 1)]).await.unwrap();
    let refused = tx.keep_transcript(&name("a"), &digest, b"x").await.unwrap_err();
    assert!(refused.to_string().starts_with("fenced: run/a"), "{refused}");
    drop(tx);
    let mut tx = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
    let lost = tx.keep_transcript(&name("c"), &digest, b"x").await.unwrap_err();
    assert!(lost.to_string().starts_with("fenced: run/c"), "a run that is not there has no fence: {lost}");
}

/// A run at its end that printed something an hour ago by the store's clock, under this text's digest.
async fn printed(lab: &mut impl Lab, run: &str, text: &[u8]) -> Digest {
    let digest = Digest::of(text);
    let mut tx = lab.store().tx(&[run_fence(run, 1)]).await.unwrap();
    tx.keep_transcript(&name(run), &digest, text).await.unwrap();
    tx.commit().await.unwrap();
    digest
}

async fn ended(lab: &mut impl Lab, run: &str) {
    let mut tx = lab.store().tx(&[run_fence(run, 1)]).await.unwrap();
    let mut row = tx.run(&name(run)).await.unwrap().unwrap();
    for state in [RunState::Queued, RunState::Cancelled] {
        if row.state != state {
            row.state = state;
            tx.update_run(&mut row).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
}

pub(crate) async fn transcripts_go_that_no_decision_names(lab: &mut impl Lab) {
    for run in ["a", "b", "c"] {
        add_run(&*lab.store(), run).await;
    }
    let plain = printed(lab, "a", b"one").await;
    let named = printed(lab, "a", b"printed").await;
    let running = printed(lab, "b", b"two").await;
    let project = lab.store().read().await.unwrap().run(&name("a")).await.unwrap().unwrap().project;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(decision("d", "a").transcript, Some(named));
    tx.insert_decision(&decision("d", "a")).await.unwrap();
    tx.commit().await.unwrap();
    ended(lab, "a").await;
    let mut tx = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
    let later = tx.now().plus_seconds(60);
    let named_stays = "what a decision names stays, and fills up nobody's room";
    assert_eq!(tx.transcript_bytes(&project).await.unwrap(), 3 + 3, "{named_stays}");
    let due = tx.due_transcripts(&project, later, 10).await.unwrap();
    assert_eq!(due, [DueTranscript { run: name("a"), digest: plain, size: 3 }], "{running} is of a run that goes on");
    let early = tx.due_transcripts(&project, later.plus_seconds(-86_400), 10).await.unwrap();
    assert_eq!(early, []);
    let gone = tx.forget_transcript(&name("a"), &plain).await.unwrap().unwrap();
    assert_eq!((gone.size, gone.digest), (3, plain));
    assert_eq!(tx.forget_transcript(&name("a"), &plain).await.unwrap(), None);
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.transcript(&name("a"), &plain).await.unwrap(), None);
    assert_eq!(view.gone_transcripts(&name("a")).await.unwrap(), [gone]);
    assert_eq!(view.transcript(&name("a"), &named).await.unwrap(), Some(b"printed".to_vec()));
    assert_eq!(view.transcript_bytes(&project).await.unwrap(), 3, "{named_stays}");
}
