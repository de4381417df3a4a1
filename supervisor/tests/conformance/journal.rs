//! Events, notices, idempotent answers, the audit log, and the check of it.

use std::time::Duration;

use autopack_shared::domain::audit::{AuditBreak, verify_chain};
use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::state::{ApplyState, RequestState};
use autopack_supervisor::store::Tx;
use autopack_supervisor::store::verify::verify;

use crate::fixtures::*;
use crate::lab::Lab;
use crate::rows::{exists, missing};

pub(crate) async fn events_are_numbered_by_run(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    for n in 1..=5 {
        let mut row = event("a", &format!("e{n}"));
        assert_eq!(tx.append_event(&mut row).await.unwrap(), n);
        assert_eq!(row.seq, n);
    }
    assert_eq!(tx.append_event(&mut event("b", "x")).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.append_event(&mut event("a", "gone")).await.unwrap();
    drop(tx);
    let mut view = lab.store().read().await.unwrap();
    let page = view.events(&name("a"), 2, 2).await.unwrap();
    let texts: Vec<_> = page.iter().map(|e| (e.seq, e.text.as_str())).collect();
    assert_eq!(texts, [(3, "e3"), (4, "e4")]);
    assert_eq!(page[0].data, event("a", "").data);
    assert_eq!(view.events(&name("a"), 0, 100).await.unwrap().len(), 5, "no gap, and nothing of what was dropped");
    assert!(view.events(&name("a"), 5, 100).await.unwrap().is_empty());
    let back: Vec<u64> = view.events_back(&name("a"), u64::MAX, 2).await.unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(back, [5, 4]);
    let back: Vec<u64> = view.events_back(&name("a"), 4, 100).await.unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(back, [3, 2, 1]);
    assert!(view.events_back(&name("a"), 1, 100).await.unwrap().is_empty());
}

pub(crate) async fn notices_are_sent_in_order(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    for id in ["n-3", "n-1", "n-2"] {
        tx.insert_notice(&notice(id, "a")).await.unwrap();
    }
    assert_eq!(exists(tx.insert_notice(&notice("n-1", "a")).await), "notice n-1");
    assert_eq!(tx.unsent_notices(2).await.unwrap(), [notice("n-3", "a"), notice("n-1", "a")]);
    assert!(tx.mark_sent(&name("n-3"), at(60)).await.unwrap());
    assert!(!tx.mark_sent(&name("n-3"), at(61)).await.unwrap());
    assert_eq!(tx.facts().await.unwrap().notices[0].sent_at, Some(at(60)));
    assert_eq!(tx.unsent_notices(9).await.unwrap(), [notice("n-1", "a"), notice("n-2", "a")]);
    assert_eq!(missing(tx.mark_sent(&name("n-9"), at(60)).await), "notice n-9");
}

pub(crate) async fn an_idempotent_call_is_answered_once(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let (key, who, method) = ("k-1", "local:ann", "runs.submit");
    assert_eq!(tx.idem(key, who, method).await.unwrap(), None);
    tx.put_idem(key, who, method, Digest::of(b"call"), b"\0answer\xff").await.unwrap();
    assert_eq!(tx.idem(key, who, method).await.unwrap(), Some((Digest::of(b"call"), b"\0answer\xff".to_vec())));
    assert_eq!(tx.idem(key, "local:bob", method).await.unwrap(), None);
    assert_eq!(tx.idem(key, who, "runs.cancel").await.unwrap(), None);
    assert_eq!(exists(tx.put_idem(key, who, method, Digest::of(b"other"), b"").await), "idempotency key k-1");
    drop(tx);
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.put_idem(key, who, method, Digest::of(b"call"), b"\0answer\xff").await.unwrap();
    tx.put_idem(key, "local:bob", method, Digest::of(b"call"), b"").await.unwrap();
    let hour = Duration::from_secs(3600);
    let later = u64::try_from((tx.now().as_millis()) + hour.as_millis() as i64).unwrap();
    tx.commit().await.unwrap();
    // An hour later, and after an end without a word.
    lab.reopen(false, later).await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(tx.idem(key, who, method).await.unwrap(), Some((Digest::of(b"call"), b"\0answer\xff".to_vec())));
    assert_eq!(exists(tx.put_idem(key, who, method, Digest::of(b"other"), b"").await), "idempotency key k-1");
}

pub(crate) async fn chains_grow_side_by_side(lab: &mut impl Lab) {
    let order = ["run/a", "cluster", "run/a", "run/b", "run/a"];
    let mut instants = Vec::new();
    for chain in order {
        let mut tx = lab.store().tx(&[]).await.unwrap();
        tx.append_audit(draft(chain, "run.queued", "run", "a", None)).await.unwrap();
        instants.push(tx.now());
        tx.commit().await.unwrap();
        lab.advance(Duration::from_secs(1)).await;
    }
    numbered(lab).await;
    let mut view = lab.store().read().await.unwrap();
    let heads = view.audit_heads().await.unwrap();
    let lengths: Vec<_> = heads.iter().map(|(chain, seq, _)| (chain.as_str(), *seq)).collect();
    assert_eq!(lengths, [("cluster", 1), ("run/a", 3), ("run/b", 1)]);
    for (chain, seq, hash) in heads {
        let records = view.audit(&chain, 1, 100).await.unwrap();
        verify_chain(&chain, &records, (seq, hash)).unwrap();
        for record in records {
            let place = usize::try_from(record.leaf_index).unwrap();
            assert_eq!((order[place], instants[place]), (&*chain, record.at), "commit order, over all chains");
        }
    }
    let page = view.audit("run/a", 2, 1).await.unwrap();
    assert_eq!(page.iter().map(|r| r.seq).collect::<Vec<_>>(), [2]);
    assert!(page[0].body.contains(&format!("\"cluster\":\"{}\"", view.cluster_id().await.unwrap())));
    assert!(view.audit("run/c", 1, 100).await.unwrap().is_empty());
}

/// Waits until every record has its position in the whole log, which a store may give it a moment after the commit.
async fn numbered(lab: &impl Lab) {
    for _ in 0..1000 {
        let facts = lab.store().read().await.unwrap().facts().await.unwrap();
        if facts.numbered == facts.leaves {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log is not numbered");
}

pub(crate) async fn an_audit_record_lives_and_dies_with_its_change(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.insert_run(&run("a")).await.unwrap();
    tx.append_audit(draft("run/a", "run.created", "run", "a", Some("created"))).await.unwrap();
    tx.append_audit(draft("cluster", "run.created", "run", "a", Some("created"))).await.unwrap();
    drop(tx);
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.run(&name("a")).await.unwrap(), None);
    assert!(view.audit_heads().await.unwrap().is_empty());
    drop(view);
    // What comes next takes the place that was given up: no gap.
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.append_audit(draft("cluster", "x.y", "run", "a", None)).await.unwrap();
    let inside = tx.audit("cluster", 1, 9).await.unwrap();
    tx.append_audit(draft("cluster", "x.y", "run", "b", None)).await.unwrap();
    tx.commit().await.unwrap();
    numbered(lab).await;
    let records = lab.store().read().await.unwrap().audit("cluster", 1, 9).await.unwrap();
    assert_eq!(records.iter().map(|r| (r.seq, r.leaf_index)).collect::<Vec<_>>(), [(1, 0), (2, 1)]);
    let inside: Vec<_> = inside.iter().map(|r| (r.seq, r.hash)).collect();
    assert_eq!(inside, [(1, records[0].hash)], "whoever wrote it can read it before the commit");
}

async fn audited(tx: &mut dyn Tx, noun: &str, id: &str, state: &str, row: &impl serde::Serialize) {
    let draft = draft("run/a", &format!("{noun}.{state}"), noun, id, Some(state));
    tx.append_audit(pinned(draft, row)).await.unwrap();
}

/// A run whose request was approved and used by an apply that was committed, all of it audited but the last steps.
async fn story(lab: &mut impl Lab, told: bool) {
    add_logged_run(&*lab.store(), "a").await;
    let mut tx = directing(&*lab.store()).await;
    let mut request = request("q-1", "a");
    tx.insert_request(&request).await.unwrap();
    let created = draft("run/a", "request.created", "request", "q-1", None);
    tx.append_audit(pinned(created, &request)).await.unwrap();
    request.state = RequestState::Approved;
    tx.update_request(&mut request).await.unwrap();
    audited(&mut *tx, "request", "q-1", "approved", &request).await;
    let vote = vote("q-1", "local:ann");
    tx.insert_vote(&vote).await.unwrap();
    tx.append_audit(pinned(draft("run/a", "vote.recorded", "request", "q-1", None), &vote)).await.unwrap();
    request.state = RequestState::Consumed;
    tx.update_request(&mut request).await.unwrap();
    let mut apply = apply("a-1", "a");
    tx.insert_apply(&apply).await.unwrap();
    audited(&mut *tx, "apply", "a-1", "prepared", &apply).await;
    apply.state = ApplyState::Committed;
    tx.update_apply(&mut apply).await.unwrap();
    if told {
        audited(&mut *tx, "request", "q-1", "consumed", &request).await;
        audited(&mut *tx, "apply", "a-1", "committed", &apply).await;
    }
    tx.commit().await.unwrap();
}

pub(crate) async fn a_whole_log_verifies(lab: &mut impl Lab) {
    let empty = verify(&*lab.store()).await.unwrap();
    assert_eq!((empty.exit_code(), empty.records, empty.chains), (0, 0, 0));
    story(lab, true).await;
    let report = verify(&*lab.store()).await.unwrap();
    assert_eq!(report.problems(), [""; 0]);
    assert_eq!((report.exit_code(), report.records, report.chains), (0, 10, 2));
}

pub(crate) async fn a_row_that_the_log_does_not_know_is_found(lab: &mut impl Lab) {
    story(lab, false).await;
    let report = verify(&*lab.store()).await.unwrap();
    assert_eq!(report.exit_code(), 6);
    let expected = [
        "request q-1: the row says consumed, the log says approved",
        "apply a-1: the row says committed, the log says prepared",
    ];
    assert_eq!(report.problems(), expected);
    assert!(matches!(report.breaks[..], [AuditBreak::Semantic { .. }, AuditBreak::Semantic { .. }]));
}
