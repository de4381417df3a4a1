//! Asking people: a request for exactly one subject, or the approval of the same change carried on.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::ROW;
use autopack_shared::domain::evaluate::Verdict;
use autopack_shared::domain::ids::{RequestId, RowId};
use autopack_shared::domain::record::{Decision, Notice, Phase, Principal, Request, Run, RunKind};
use autopack_shared::domain::state::{RequestEvent, RequestState};

use super::moves::{self, Note, note, pin};
use super::view::RunView;
use super::{Director, system};
use crate::error::Error;
use crate::store::Tx;

impl Director {
    /// An approval of the same change on another base, taken over: the paths, old and new contents are the same, the
    /// policy too, and the tier is no higher.
    pub(super) async fn carried(
        &self,
        tx: &mut dyn Tx,
        phase: &Phase,
        carry: Option<RequestId>,
        decision: &Decision,
        tier: u8,
    ) -> Result<Option<Request>, Error> {
        let Some(id) = carry else { return Ok(None) };
        let Some(old) = tx.request(&id).await? else { return Ok(None) };
        let Some(before) = tx.decision(&old.decision).await? else { return Ok(None) };
        let fits = old.decided_by.is_some()
            && old.attempt == phase.attempt
            && old.tier >= tier
            && before.policy_digest == decision.policy_digest
            && before.anchor_digest == decision.anchor_digest
            && tx.now() < old.expires_at;
        if !fits {
            return Ok(None);
        }
        let mut request = Request {
            id: RequestId::new(self.ids.fresh("req"))?,
            attempt: phase.attempt,
            decision: decision.id.clone(),
            state: RequestState::Pending,
            version: 0,
            subject_digest: decision.subject_digest,
            base: decision.base,
            tree: decision.tree,
            carried_from: Some(old.id.clone()),
            created_at: tx.now(),
            ..old
        };
        tx.insert_request(&request).await?;
        created(tx, &request).await?;
        let actor = request.decided_by.clone().unwrap_or_else(Principal::system);
        let reason = request.carried_from.as_ref().map(|id| format!("carried from {id}"));
        moves::request(tx, &mut request, RequestEvent::Approve, reason, &actor).await?;
        Ok(Some(request))
    }

    pub(super) async fn open_request(
        &self,
        tx: &mut dyn Tx,
        view: &RunView,
        phase: &Phase,
        decision: &Decision,
        verdict: &Verdict,
        tier: u8,
    ) -> Result<Request, Error> {
        let policy = self.policy_of(&view.run).await?;
        let rules = policy.config.policy.approval();
        let mut paths: Vec<String> = verdict.reasons.iter().flat_map(|r| r.paths.iter().cloned()).collect();
        if paths.is_empty() {
            // The whole change is why: what it touches is what is asked about.
            paths = verdict.facts.entries.iter().take(50).map(|e| e.path.shown().to_owned()).collect();
        }
        paths.sort();
        paths.dedup();
        let elevated = rules.tier4_approvers.map_or(self.config.elevated_approvers, u32::from);
        let seconds =
            if rules.timeout_seconds > 0 { i64::from(rules.timeout_seconds) } else { self.config.approval_seconds };
        let request = Request {
            id: RequestId::new(self.ids.fresh("req"))?,
            run: phase.run.clone(),
            phase: phase.id.clone(),
            attempt: phase.attempt,
            decision: decision.id.clone(),
            tier,
            state: RequestState::Pending,
            version: 0,
            subject_digest: decision.subject_digest,
            base: decision.base,
            tree: decision.tree,
            target_ref: subject_ref(&view.run),
            violated_paths: paths,
            justification: phase.spec.goal.chars().take(500).collect(),
            risk_level: verdict.severity.to_string(),
            risk_score: verdict.score,
            risk_factors: verdict.reasons.iter().map(|r| r.code.as_str().to_owned()).collect(),
            author: view.run.author.clone(),
            approvers_needed: if tier == 4 { elevated.max(1) } else { 1 },
            created_at: tx.now(),
            expires_at: tx.now().plus_seconds(seconds.clamp(60, 86_400)),
            decided_by: None,
            decided_at: None,
            notes: None,
            reason_code: None,
            carried_from: None,
        };
        tx.insert_request(&request).await?;
        created(tx, &request).await?;
        self.remember(&request);
        let text = format!(
            "{} asks for approval of {}/{} (tier {tier}, {})",
            request.id, request.run, request.phase, request.risk_level
        );
        self.notice(tx, &view.run, "approval_needed", text).await?;
        Ok(request)
    }

    pub(super) async fn notice(&self, tx: &mut dyn Tx, run: &Run, kind: &str, text: String) -> Result<(), Error> {
        let id = RowId::new(self.ids.fresh("note"))?;
        let notice =
            Notice { id, run: run.id.clone(), kind: kind.to_owned(), text, created_at: tx.now(), sent_at: None };
        moves::notice(tx, &notice).await
    }
}

/// The ref that a subject names: the run's branch, or the target that a landing moves (`coordination.md` 3.14).
pub(super) fn subject_ref(run: &Run) -> String {
    match (run.kind, &run.target_ref) {
        (RunKind::Landing, Some(target)) => target.clone(),
        (RunKind::Landing, None) | (RunKind::Patch, _) => run.branch.clone(),
    }
}

async fn created(tx: &mut dyn Tx, request: &Request) -> Result<(), Error> {
    note(
        tx,
        Note {
            actor: &system(),
            run: &request.run,
            phase: Some(&request.phase),
            op: "request.created".to_owned(),
            object: "request",
            id: request.id.to_string(),
            moved: None,
            digests: BTreeMap::from([
                ("subject".to_owned(), request.subject_digest.to_string()),
                (ROW.to_owned(), pin(request)?),
            ]),
            reason: request.risk_factors.join(" "),
            text: Some(format!("{} asks about {} (tier {})", request.id, request.phase, request.tier)),
        },
    )
    .await
}
