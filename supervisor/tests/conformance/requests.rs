//! Decisions, requests, votes, commands.

use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::record::{Command, Request};
use autopack_shared::domain::state::RequestState;
use autopack_supervisor::store::RequestFilter;

use crate::fixtures::*;
use crate::lab::Lab;
use crate::rows::{conflict, exists, missing};

pub(crate) async fn decisions_are_kept_in_order(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    for (id, run) in [("d-2", "a"), ("d-9", "b"), ("d-1", "a")] {
        tx.insert_decision(&decision(id, run)).await.unwrap();
    }
    assert_eq!(exists(tx.insert_decision(&decision("d-1", "b")).await), "decision d-1");
    assert_eq!(tx.decisions(&name("a")).await.unwrap(), [decision("d-2", "a"), decision("d-1", "a")]);
    assert_eq!(tx.decision(&name("d-9")).await.unwrap(), Some(decision("d-9", "b")));
    assert_eq!(tx.decision(&name("d-8")).await.unwrap(), None);
}

pub(crate) async fn a_subject_has_one_pending_request(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let mut first = request("q-1", "a");
    tx.insert_request(&first).await.unwrap();
    let again = Request { subject_digest: first.subject_digest, ..request("q-2", "a") };
    let expected = format!("a pending request about {}", first.subject_digest);
    assert_eq!(exists(tx.insert_request(&again).await), expected);
    assert_eq!(
        exists(tx.insert_request(&Request { subject_digest: Digest::of(b"x"), ..first.clone() }).await),
        "request q-1"
    );
    first.state = RequestState::TimedOut;
    tx.update_request(&mut first).await.unwrap();
    tx.insert_request(&again).await.unwrap();
    assert_eq!(tx.request(&name("q-1")).await.unwrap(), Some(first));
    assert_eq!(tx.request(&name("q-2")).await.unwrap(), Some(again));
    assert_eq!(tx.request(&name("q-3")).await.unwrap(), None);
}

pub(crate) async fn requests_are_listed_newest_first_and_filtered(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let states = [RequestState::Pending, RequestState::Approved, RequestState::Rejected, RequestState::Pending];
    for ((id, run), state) in [("q1", "a"), ("q2", "a"), ("q3", "b"), ("q4", "b")].into_iter().zip(states) {
        let phase = if id == "q4" { name("z") } else { name("p") };
        tx.insert_request(&Request { state, phase, ..request(id, run) }).await.unwrap();
    }
    let mut listed = async |run: Option<&str>, phase: Option<&str>, states: &[RequestState], limit| {
        let filter = RequestFilter { run: run.map(name), phase: phase.map(name), states: states.to_vec(), limit };
        let ids: Vec<_> = tx.requests(&filter).await.unwrap().iter().map(|r| r.id.to_string()).collect();
        ids.join(" ")
    };
    assert_eq!(listed(None, None, &[], 0).await, "q4 q3 q2 q1");
    assert_eq!(listed(None, None, &[], 3).await, "q4 q3 q2");
    assert_eq!(listed(Some("a"), None, &[], 0).await, "q2 q1");
    assert_eq!(listed(Some("b"), Some("z"), &[], 0).await, "q4");
    assert_eq!(listed(None, Some("p"), &[RequestState::Pending, RequestState::Rejected], 0).await, "q3 q1");
    assert_eq!(listed(None, None, &[RequestState::Consumed], 0).await, "");
}

pub(crate) async fn the_next_expiry_is_of_what_is_open(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(tx.next_expiry().await.unwrap(), None);
    let cases =
        [("q1", RequestState::Rejected, 5), ("q2", RequestState::Approved, 30), ("q3", RequestState::Pending, 20)];
    for (id, state, expires) in cases {
        tx.insert_request(&Request { state, expires_at: at(expires), ..request(id, "a") }).await.unwrap();
    }
    assert_eq!(tx.next_expiry().await.unwrap(), Some(at(20)));
    let mut third = tx.request(&name("q3")).await.unwrap().unwrap();
    third.expires_at = at(99);
    tx.update_request(&mut third).await.unwrap();
    assert_eq!(tx.next_expiry().await.unwrap(), Some(at(30)));
    third.state = RequestState::Rejected;
    tx.update_request(&mut third).await.unwrap();
    let mut second = tx.request(&name("q2")).await.unwrap().unwrap();
    second.state = RequestState::Consumed;
    tx.update_request(&mut second).await.unwrap();
    assert_eq!(tx.next_expiry().await.unwrap(), None);
}

pub(crate) async fn a_principal_votes_once(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(missing(tx.insert_vote(&vote("q-1", "local:ann")).await), "request q-1");
    tx.insert_request(&request("q-1", "a")).await.unwrap();
    tx.insert_request(&request("q-2", "a")).await.unwrap();
    tx.insert_vote(&vote("q-1", "local:bob")).await.unwrap();
    tx.insert_vote(&vote("q-1", "local:ann")).await.unwrap();
    tx.insert_vote(&vote("q-2", "local:ann")).await.unwrap();
    assert_eq!(exists(tx.insert_vote(&vote("q-1", "local:ann")).await), "vote local:ann of q-1");
    let mut other_door = vote("q-1", "local:ann");
    other_door.principal.method = "telegram".to_owned();
    assert_eq!(
        exists(tx.insert_vote(&other_door).await),
        "vote local:ann of q-1",
        "the door does not make another person"
    );
    assert_eq!(tx.votes(&name("q-1")).await.unwrap(), [vote("q-1", "local:bob"), vote("q-1", "local:ann")]);
}

pub(crate) async fn commands_wait_until_they_are_done(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    for (id, run) in [("c-2", "a"), ("c-1", "b"), ("c-3", "a")] {
        tx.insert_command(&command(id, run)).await.unwrap();
    }
    assert_eq!(exists(tx.insert_command(&command("c-1", "a")).await), "command c-1");
    let all = [command("c-2", "a"), command("c-1", "b"), command("c-3", "a")];
    assert_eq!(tx.open_commands(None).await.unwrap(), all);
    tx.finish_command(&name("c-2"), at(50), "done").await.unwrap();
    let ended = Command { done_at: Some(at(50)), result: Some("done".to_owned()), ..command("c-2", "a") };
    assert_eq!(tx.command(&name("c-2")).await.unwrap(), Some(ended));
    assert_eq!(tx.command(&name("c-3")).await.unwrap(), Some(command("c-3", "a")));
    assert_eq!(tx.command(&name("c-9")).await.unwrap(), None);
    assert_eq!(tx.open_commands(Some(&name("a"))).await.unwrap(), [command("c-3", "a")]);
    assert_eq!(conflict(tx.finish_command(&name("c-2"), at(51), "again").await).0, "command c-2");
    assert_eq!(missing(tx.finish_command(&name("c-9"), at(51), "done").await), "command c-9");
}
