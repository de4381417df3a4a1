//! `GovernanceService`: look at requests and decide them. A decision is one compare-and-set on the request's row, with
//! its audit record, for exactly the digest that was looked at.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as Call, Response, Status};

use autopack_shared::domain::audit::ROW;
use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::record::{Principal, Request, Vote};
use autopack_shared::domain::state::{RequestEvent, RequestState};
use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::runtime::telemetry::instruments::metrics;
use autopack_shared::wire::pb::governance_service_server::GovernanceService;
use autopack_shared::wire::pb::{self, Choice};
use autopack_shared::wire::{again, kept};

use super::cores::{Cores, caller, find_request};
use super::{Core, show};
use crate::director::moves::{self, Note, note, pin};
use crate::director::run_blocking;
use crate::error::Error;
use crate::store::{RequestFilter, Store, Tx};

/// Characters of a reason that are kept.
const MAX_REASON: usize = 2000;

/// The service.
pub struct GovernanceApi {
    /// The projects.
    pub cores: Arc<Cores>,
    /// Owned tasks.
    pub tasks: Tasks,
}

type Requests = Pin<Box<dyn Stream<Item = Result<pb::Request, Status>> + Send>>;

#[tonic::async_trait]
impl GovernanceService for GovernanceApi {
    type WatchStream = Requests;

    async fn list(&self, call: Call<pb::ListRequestsRequest>) -> Result<Response<pb::ListRequestsResponse>, Status> {
        let requests = list_requests(self.cores.store().as_ref(), &call.into_inner()).await?;
        Ok(Response::new(pb::ListRequestsResponse { requests }))
    }

    async fn get(&self, call: Call<pb::GetRequestRequest>) -> Result<Response<pb::RequestDetail>, Status> {
        let id = call.into_inner().request_id;
        Ok(Response::new(self.cores.of_request(&id).await?.request_detail(&id).await?))
    }

    async fn decide(&self, call: Call<pb::DecideRequest>) -> Result<Response<pb::Request>, Status> {
        let principal = caller(&call);
        let core = self.cores.of_request(&call.get_ref().request_id).await?;
        Ok(Response::new(core.decide(call.into_inner(), &principal).await?))
    }

    async fn watch(&self, call: Call<pb::WatchRequestsRequest>) -> Result<Response<Requests>, Status> {
        let run_id = call.into_inner().run_id;
        let (out, stream) = mpsc::channel(64);
        let (store, stop) = (self.cores.store().clone(), self.tasks.stop().clone());
        self.tasks.spawn("watch-requests", OnError::Log, async move {
            let mut changes = store.changes();
            let mut seen: BTreeMap<String, String> = BTreeMap::new();
            loop {
                changes.mark_unchanged();
                let all =
                    pb::ListRequestsRequest { states: vec!["ALL".to_owned()], run_id: run_id.clone(), limit: 1000 };
                for request in list_requests(store.as_ref(), &all).await?.into_iter().rev() {
                    if seen.insert(request.id.clone(), request.state.clone()).as_deref() != Some(request.state.as_str())
                        && out.send(Ok(request)).await.is_err()
                    {
                        return Ok(());
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = out.closed() => return Ok(()),
                    changed = changes.changed() => if changed.is_err() { return Ok::<(), Error>(()) },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

async fn list_requests(store: &dyn Store, call: &pb::ListRequestsRequest) -> Result<Vec<pb::Request>, Error> {
    let mut states = Vec::new();
    for word in &call.states {
        if word == "ALL" {
            states = RequestState::ALL.to_vec();
            break;
        }
        let state = word
            .to_lowercase()
            .parse()
            .map_err(|e| Error::Invalid { field: "states".to_owned(), why: format!("{e}") })?;
        states.push(state);
    }
    if states.is_empty() {
        states.push(RequestState::Pending);
    }
    let run = if call.run_id.is_empty() { None } else { Some(call.run_id.parse()?) };
    let limit = if call.limit == 0 { 1000 } else { call.limit.min(10_000) };
    let mut tx = store.read().await?;
    let mut shown = Vec::new();
    for request in tx.requests(&RequestFilter { run, phase: None, states, limit }).await? {
        let votes = tx.votes(&request.id).await?;
        shown.push(show::request(&request, approving(&votes)));
    }
    Ok(shown)
}

impl Core {
    async fn request_detail(&self, id: &str) -> Result<pb::RequestDetail, Error> {
        let mut tx = self.store.read().await?;
        let request = find_request(tx.as_mut(), id).await?;
        let decision = tx.decision(&request.decision).await?;
        let phase = tx.phase(&request.run, &request.phase).await?;
        let votes = tx.votes(&request.id).await?;
        drop(tx);
        let (hub, base, tree) = (self.hub.clone(), request.base, request.tree);
        let (diff, diff_truncated) = run_blocking(move || show::diff(hub.as_ref(), base, tree)).await?;
        Ok(pb::RequestDetail {
            request: Some(show::request(&request, approving(&votes))),
            verdict_json: decision.map(|d| d.document.to_string()).unwrap_or_default(),
            diff,
            diff_truncated,
            goal: phase.map(|p| p.spec.goal).unwrap_or_default(),
            votes: votes
                .iter()
                .map(|v| pb::Vote {
                    principal: v.principal.id.clone(),
                    approve: v.approve,
                    notes: v.notes.clone(),
                    at_ms: v.at.as_millis(),
                })
                .collect(),
        })
    }

    /// Decides a request, once.
    async fn decide(&self, call: pb::DecideRequest, principal: &Principal) -> Result<pb::Request, Error> {
        let invalid = |field: &str, why: &str| Error::Invalid { field: field.to_owned(), why: why.to_owned() };
        let approve = match call.choice() {
            Choice::Approve => true,
            Choice::Reject => false,
            Choice::Unspecified => return Err(invalid("choice", "it is neither approve nor reject")),
        };
        let expected: Digest = call.expected_digest.parse()?;
        let reason: String = call.reason.chars().take(MAX_REASON).collect();
        let hash =
            Digest::of(format!("{}|{approve}|{expected}|{reason}|{}", call.request_id, call.reason_code).as_bytes());
        let mut tx = self.store.tx(&[]).await?;
        let request = find_request(tx.as_mut(), &call.request_id).await?;
        if let Some((before, answer)) = self.idem(tx.as_mut(), &call.idempotency_key, principal, "Decide").await? {
            if before != hash {
                return Err(Error::Exists {
                    what: "idempotency key",
                    id: call.idempotency_key,
                    hint: "use a fresh key for another call",
                });
            }
            // As it was answered, whatever became of the request since; answers of before were not kept.
            if let Some(shown) = again(&answer).filter(|_| !answer.is_empty()) {
                return Ok(shown);
            }
            let votes = tx.votes(&request.id).await?;
            return Ok(show::request(&request, approving(&votes)));
        }
        let (shown, decided) =
            self.vote(tx.as_mut(), request, approve, expected, reason, &call.reason_code, principal).await?;
        if !call.idempotency_key.is_empty() {
            tx.put_idem(&call.idempotency_key, &principal.id, "Decide", hash, &kept(&shown)).await?;
        }
        tx.commit().await?;
        if let Some(request) = decided {
            metrics().decided(request.tier, &principal.method, request.state.as_str(), request.waited());
        }
        Ok(shown)
    }

    pub(super) async fn idem(
        &self,
        tx: &mut dyn Tx,
        key: &str,
        principal: &Principal,
        method: &str,
    ) -> Result<Option<(Digest, Vec<u8>)>, Error> {
        if key.is_empty() {
            return Ok(None);
        }
        Ok(tx.idem(key, &principal.id, method).await?)
    }

    #[expect(clippy::too_many_arguments, reason = "one vote has that many parts")]
    async fn vote(
        &self,
        tx: &mut dyn Tx,
        mut request: Request,
        approve: bool,
        expected: Digest,
        reason: String,
        reason_code: &str,
        principal: &Principal,
    ) -> Result<(pb::Request, Option<Request>), Error> {
        check(tx, &request, approve, expected, &reason, principal, self.mode)?;
        let votes = tx.votes(&request.id).await?;
        if votes.iter().any(|v| v.principal.id == principal.id) {
            return Err(Error::State {
                what: "request",
                id: request.id.to_string(),
                state: "PENDING".to_owned(),
                why: format!("{} has voted on it already", principal.id),
                reason: "already_voted",
            });
        }
        let at = tx.now();
        let vote = Vote {
            request: request.id.clone(),
            principal: principal.clone(),
            approve,
            subject_digest: expected,
            notes: reason.clone(),
            at,
        };
        tx.insert_vote(&vote).await?;
        note(
            tx,
            Note {
                actor: principal,
                run: &request.run,
                phase: Some(&request.phase),
                op: "vote.recorded".to_owned(),
                object: "request",
                id: request.id.to_string(),
                moved: None,
                digests: BTreeMap::from([("subject".to_owned(), expected.to_string()), (ROW.to_owned(), pin(&vote)?)]),
                reason: format!("{}: {reason}", if approve { "approve" } else { "reject" }),
                text: None,
            },
        )
        .await?;
        let so_far = approving(&votes) + u32::from(approve);
        let mut decided = None;
        if !approve || so_far >= request.approvers_needed {
            request.decided_by = Some(principal.clone());
            request.decided_at = Some(at);
            request.notes = Some(reason.clone());
            if !approve {
                request.reason_code = Some(if reason_code.is_empty() {
                    "rejected".to_owned()
                } else {
                    reason_code.chars().take(64).collect()
                });
            }
            let event = if approve { RequestEvent::Approve } else { RequestEvent::Reject };
            moves::request(tx, &mut request, event, Some(reason), principal).await?;
            decided = Some(request.clone());
        }
        Ok((show::request(&request, so_far), decided))
    }
}

fn check(
    tx: &dyn Tx,
    request: &Request,
    approve: bool,
    expected: Digest,
    reason: &str,
    principal: &Principal,
    mode: &str,
) -> Result<(), Error> {
    let state = |why: String, reason| Error::State {
        what: "request",
        id: request.id.to_string(),
        state: request.state.as_str().to_uppercase(),
        why,
        reason,
    };
    // One answer whether or not the sweep came before the vote: late is late.
    let late = request.state == RequestState::Pending && tx.now() >= request.expires_at;
    if late || request.state == RequestState::TimedOut {
        return Err(state(format!("its time was up at {}", request.expires_at), "approval_expired"));
    }
    if request.state != RequestState::Pending {
        let by = request.decided_by.as_ref().map_or_else(String::new, |p| format!(" by {}", p.id));
        return Err(state(format!("it was decided{by} and does not change any more"), "not_pending"));
    }
    if request.subject_digest != expected {
        return Err(Error::SubjectMismatch {
            id: request.id.to_string(),
            current: request.subject_digest.to_string(),
            expected: expected.to_string(),
        });
    }
    if approve && mode == "cluster" && request.author.id == principal.id {
        return Err(Error::Forbidden {
            reason: "sod_self_approval",
            why: format!("{} started the run and cannot approve it", principal.id),
        });
    }
    if reason.trim().is_empty() && (request.tier == 4 || !approve) {
        let why =
            if approve { "tier 4 needs a written justification" } else { "a rejection needs words for the builder" };
        return Err(Error::Invalid { field: "reason".to_owned(), why: why.to_owned() });
    }
    Ok(())
}

fn approving(votes: &[Vote]) -> u32 {
    u32::try_from(votes.iter().filter(|v| v.approve).count()).unwrap_or(u32::MAX)
}
