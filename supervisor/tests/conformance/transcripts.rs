//! Transcripts: kept once under their digest, for their run, under its fence, and for good.

use autopack_shared::domain::ids::Digest;

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
