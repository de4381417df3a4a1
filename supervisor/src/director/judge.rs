//! The verdict over a collected tree, and what follows from it; and putting a change on a branch that moved on.

use std::collections::BTreeMap;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::audit::ROW;
use autopack_shared::domain::change::ChangeFacts;
use autopack_shared::domain::evaluate::{self, PhaseScope, Spent, Subject, Verdict, Window, evaluate};
use autopack_shared::domain::feedback::{FeedbackKind, Told};
use autopack_shared::domain::ids::{Digest, Oid, PhaseId, RequestId, RowId};
use autopack_shared::domain::path::PathRoots;
use autopack_shared::domain::policy::PathClass;
use autopack_shared::domain::record::{Decision, Phase, Run, WindowSums};
use autopack_shared::domain::run_file::ClaimedRisk;
use autopack_shared::domain::score::Severity;
use autopack_shared::domain::state::{AttemptEvent, PhaseEvent, PhaseState, RequestState};
use autopack_shared::repo::diff::{missing_paths, missing_symbols};
use autopack_shared::repo::facts::{Limits, change_facts};
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::ask::subject_ref;
use super::grant::reread_phase;
use super::moves::{self, Note, note, pin};
use super::view::RunView;
use super::{Director, attempts, system};
use crate::error::Error;
use crate::hub::HubRead as _;
use crate::policy::PolicyInForce;
use crate::store::{RequestFilter, Tx};
use crate::workers::WorkerOrder;

impl Director {
    /// Judges the newest tree of a phase.
    pub(super) async fn judge(&self, view: &RunView, id: &PhaseId) -> Result<(), Error> {
        let Some(seen) = view.phase(id) else { return Ok(()) };
        let (Some(base), Some(tree)) = (seen.base, seen.tree) else {
            return Err(Error::Bug(format!("{id} is collected without base or tree")));
        };
        if let Some(why) = self.not_uploaded(seen, base, tree).await? {
            return self.refuse_unjudged(view, id, why).await;
        }
        let facts = self.facts(base, tree).await?;
        let fork = self.policy_of(&view.run).await?;
        let target = self.policy_of_target(&view.run).await?;
        let judgement = judgement_of(&fork, target.as_deref());
        let missing = self.missing(seen, (base, tree), &facts).await?;
        let rejected = self.rejected_before(seen, base, tree).await?;
        let mut tx = self.fenced(&[]).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        if phase.state != PhaseState::Governance {
            moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Judge, None, &system()).await?;
        }
        let window = window(&tx.window(&view.run, tx.now().plus_seconds(-86_400)).await?);
        let scope = scope(&view.run, &phase)?;
        let mut verdict = judged(&facts, &fork, &scope, &window);
        if let Some(target) = &target {
            // Where the target's policy differs, both are asked and the stricter holds.
            let other = judged(&facts, target, &scope, &window);
            if other.verdict.strictness() > verdict.verdict.strictness() {
                verdict = other;
            }
        }
        let subject = Subject {
            repository: view.run.project.to_string(),
            target_ref: subject_ref(&view.run),
            base,
            result_tree: tree,
            policy: judgement,
            anchor: fork.anchor_digest,
            run: Some(view.run.id.clone()),
            phase: Some(phase.id.clone()),
            attempt: Some(phase.attempt),
        };
        let verdict = verdict.bind(&subject);
        let decision = self.record(tx.as_mut(), &phase, &subject, &verdict).await?;
        phase.decision = Some(decision.id.clone());
        let refusal = match missing.or_else(|| nothing_done(&phase, &verdict)) {
            Some(refusal) => Some(refusal),
            None => self.too_many_files(tx.as_mut(), view, &phase, &facts).await?,
        };
        match refusal {
            Some((reason, told)) => attempts::refuse(tx.as_mut(), view, &mut phase, reason, told).await?,
            None => self.follow(tx.as_mut(), view, &mut phase, &decision, &verdict, rejected).await?,
        }
        tx.commit().await?;
        if let Some(tier) = decision.tier {
            tracing::Span::current().record("tier", tier);
        }
        tracing::info!(run = %view.run.id, phase = %phase.id, verdict = decision.verdict, tier = decision.tier, "judged");
        metrics().judged(&decision.verdict, decision.tier, verdict.reasons.iter().map(|r| r.code.as_str()));
        self.tell(view, &phase, &decision);
        Ok(())
    }

    /// The request of the attempt before this one, when it was rejected for this very change, wherever its base has
    /// moved since: nobody is asked the same thing twice, unless an operator had it tried again.
    async fn rejected_before(&self, phase: &Phase, base: Oid, tree: Oid) -> Result<Option<RequestId>, Error> {
        if phase.retried || phase.attempt < 2 {
            return Ok(None);
        }
        let filter = RequestFilter {
            run: Some(phase.run.clone()),
            phase: Some(phase.id.clone()),
            states: vec![RequestState::Rejected],
            limit: 1,
        };
        let newest = self.store.read().await?.requests(&filter).await?.into_iter().next();
        let Some(old) = newest.filter(|r| r.attempt + 1 == phase.attempt) else { return Ok(None) };
        let (hub, before) = (self.hub.clone(), (old.base, old.tree));
        let same = self.blocking(move || hub.same_change(before, (base, tree))).await?;
        Ok(same.then_some(old.id))
    }

    /// The facts of a change, or why its objects cannot be read: that is the change's fault and refuses it.
    async fn facts(&self, base: Oid, tree: Oid) -> Result<Result<ChangeFacts, String>, Error> {
        let hub = self.hub.clone();
        self.blocking(move || match change_facts(&hub.repository(&[base, tree])?, base, tree, &Limits::default()) {
            Ok(facts) => Ok(Ok(facts)),
            Err(error) if error.is_of_the_change() => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// What the result lacks, or that the gate has refused it before; the worker's word is not taken for it.
    async fn missing(
        &self,
        phase: &Phase,
        (base, tree): (Oid, Oid),
        facts: &Result<ChangeFacts, String>,
    ) -> Result<Option<(String, Told)>, Error> {
        if let Some(refused) = self.refused_by_gate(phase, base, tree).await? {
            let told = Told::new(FeedbackKind::GateReport, phase.attempt, "gate_failed", &refused, Vec::new());
            return Ok(Some((refused, told)));
        }
        let (hub, files, symbols) = (self.hub.clone(), phase.spec.deliverables.clone(), phase.spec.symbols.clone());
        if files.is_empty() && symbols.is_empty() {
            return Ok(None);
        }
        let lacks = self.blocking(move || {
            let repo = hub.repository(&[tree])?;
            let files = missing_paths(&repo, tree, &files)?;
            Ok((files, missing_symbols(&repo, tree, &symbols)?))
        });
        let (files, symbols) = lacks.await?;
        Ok(attempts::missing(phase, &files, facts).or_else(|| attempts::missing_symbols(phase, symbols)))
    }

    /// Nobody is asked about a change again that the gate has refused: it would only be taken back again.
    async fn refused_by_gate(&self, phase: &Phase, base: Oid, tree: Oid) -> Result<Option<String>, Error> {
        if phase.attempt < 2 || phase.retried {
            return Ok(None);
        }
        let attempts = self.store.read().await?.attempts(&phase.run, &phase.id).await?;
        for old in attempts.iter().rev().filter(|old| old.gate.as_ref().is_some_and(|gate| !gate.green)) {
            let Some(before) = old.result_tree.map(|tree| (old.base, tree)) else { continue };
            let hub = self.hub.clone();
            if self.blocking(move || hub.same_change(before, (base, tree))).await? {
                return Ok(Some(format!("gate_failed: it is the change of attempt {} again", old.number)));
            }
        }
        Ok(None)
    }

    async fn record(
        &self,
        tx: &mut dyn Tx,
        phase: &Phase,
        subject: &Subject,
        verdict: &Verdict,
    ) -> Result<Decision, Error> {
        let document = serde_json::to_value(verdict).map_err(|e| Error::Bug(e.to_string()))?;
        let attempt = tx.attempt(&phase.run, &phase.id, phase.attempt).await?;
        let sizes = verdict.class_sizes.iter().map(|(class, size)| (class_word(*class).to_owned(), *size));
        let decision = Decision {
            id: RowId::new(self.ids.fresh("dec"))?,
            run: phase.run.clone(),
            phase: phase.id.clone(),
            attempt: phase.attempt,
            base: subject.base,
            tree: subject.result_tree,
            subject_digest: subject.digest(),
            policy_digest: subject.policy,
            anchor_digest: subject.anchor,
            verdict: verdict.verdict.to_string(),
            tier: verdict.tier,
            document,
            class_sizes: sizes.collect(),
            transcript: attempt.and_then(|attempt| attempt.transcript),
            decided_at: tx.now(),
        };
        tx.insert_decision(&decision).await?;
        let codes: Vec<&str> = verdict.reasons.iter().map(|r| r.code.as_str()).collect();
        let facts = &verdict.facts;
        let text = format!(
            "{} {}: +{} -{} in {} files, score {} {}{}",
            phase.id,
            decision.verdict,
            facts.added,
            facts.removed,
            facts.files,
            verdict.score,
            verdict.severity,
            if codes.is_empty() { String::new() } else { format!(" [{}]", codes.join(" ")) },
        );
        note(
            tx,
            Note {
                actor: &system(),
                run: &phase.run,
                phase: Some(&phase.id),
                op: "decision.recorded".to_owned(),
                object: "decision",
                id: decision.id.to_string(),
                moved: None,
                digests: BTreeMap::from([
                    ("subject".to_owned(), decision.subject_digest.to_string()),
                    ("policy".to_owned(), decision.policy_digest.to_string()),
                    ("base".to_owned(), decision.base.to_string()),
                    ("tree".to_owned(), decision.tree.to_string()),
                    (ROW.to_owned(), pin(&decision)?),
                ]),
                reason: format!("{} {}", decision.verdict, codes.join(" ")),
                text: Some(text),
            },
        )
        .await?;
        Ok(decision)
    }

    /// What a verdict does to its phase, in the same transaction.
    async fn follow(
        &self,
        tx: &mut dyn Tx,
        view: &RunView,
        phase: &mut Phase,
        decision: &Decision,
        verdict: &Verdict,
        rejected: Option<RequestId>,
    ) -> Result<(), Error> {
        use evaluate::Decision as Word;
        let system = system();
        // Good for this one verdict only.
        let carry = phase.carry.take();
        match verdict.verdict {
            Word::AutoApproved => {
                phase.request = None;
                moves::phase(tx, phase, PhaseEvent::AutoApprove, None, &system).await
            }
            Word::NotifyAndProceed => {
                phase.request = None;
                let text = format!(
                    "{}/{} goes on and you are told: {} lines in {} files",
                    phase.run, phase.id, verdict.facts.size, verdict.facts.files
                );
                self.notice(tx, &view.run, "notify_and_proceed", text).await?;
                moves::phase(tx, phase, PhaseEvent::Notify, None, &system).await
            }
            Word::ApprovalRequired | Word::Blocked => {
                let tier = decision.tier.unwrap_or(4);
                if let Some(carried) = self.carried(tx, phase, carry, decision, tier).await? {
                    phase.request = Some(carried.id.clone());
                    let reason = format!("{} carries the approval on: the change is the same", carried.id);
                    return moves::phase(tx, phase, PhaseEvent::Approve, Some(reason), &system).await;
                }
                if let Some(rejected) = rejected {
                    phase.request = None;
                    let reason = format!("same_as_rejected: the builder came back with what {rejected} rejected");
                    return moves::phase(tx, phase, PhaseEvent::Block, Some(reason), &system).await;
                }
                let request = self.open_request(tx, view, phase, decision, verdict, tier).await?;
                phase.request = Some(request.id.clone());
                let event = if tier == 4 { PhaseEvent::Block } else { PhaseEvent::AskApproval };
                moves::phase(
                    tx,
                    phase,
                    event,
                    Some(format!("tier {tier}: {} waits for a decision", request.id)),
                    &system,
                )
                .await
            }
            Word::NoChange => {
                phase.apply = None;
                moves::end_attempt(tx, phase, AttemptEvent::Succeed, Some("nothing to change".to_owned())).await?;
                moves::phase(tx, phase, PhaseEvent::NoChange, Some("nothing to change".to_owned()), &system).await
            }
            Word::Rejected | Word::Conflict => {
                let why: Vec<String> =
                    verdict.reasons.iter().map(|r| format!("{} {}", r.code.as_str(), r.paths.join(", "))).collect();
                let reason = format!("{}: {}", decision.verdict, why.join("; "));
                let told = Told::new(FeedbackKind::Policy, phase.attempt, &decision.verdict, "", why);
                attempts::refuse(tx, view, phase, reason, told).await
            }
        }
    }

    fn tell(&self, view: &RunView, phase: &Phase, decision: &Decision) {
        if let Some(lease) = &view.lease {
            let order = WorkerOrder::Verdict {
                run: phase.run.to_string(),
                phase: phase.id.to_string(),
                attempt: phase.attempt,
                verdict: decision.verdict.clone(),
                request: phase.request.as_ref().map(ToString::to_string),
            };
            // A worker that is gone or busy reads it from the run's history instead.
            let _told = self.workers.send(&lease.worker, order);
        }
    }
}

/// Why an attempt failed that changed nothing where something had to change.
fn nothing_done(phase: &Phase, verdict: &Verdict) -> Option<(String, Told)> {
    let empty = phase.spec.must_change && verdict.verdict == evaluate::Decision::NoChange;
    empty.then(|| {
        let text = "the builder changed nothing, so what it was asked for is not done";
        let told = Told::new(FeedbackKind::Builder, phase.attempt, "nothing_done", text, Vec::new());
        (format!("nothing_done: {text}"), told)
    })
}

/// The policy digest that a verdict carries: the fork commit's, joined by the target tip's where that differs. Made
/// of what was evaluated, never read again.
pub(super) fn judgement_of(fork: &PolicyInForce, target: Option<&PolicyInForce>) -> Digest {
    match target {
        Some(tip) if tip.policy_digest != fork.policy_digest || tip.anchor_digest != fork.anchor_digest => {
            let both = format!(
                "{}|{:?}|{}|{:?}",
                fork.policy_digest, fork.anchor_digest, tip.policy_digest, tip.anchor_digest
            );
            Digest::of(both.as_bytes())
        }
        Some(_) | None => fork.policy_digest,
    }
}

fn judged(facts: &Result<ChangeFacts, String>, policy: &PolicyInForce, scope: &PhaseScope, window: &Window) -> Verdict {
    let facts = match facts {
        Ok(facts) => facts,
        Err(why) => return Verdict::malformed_patch(why.clone(), (policy.policy_digest, policy.anchor_digest)),
    };
    let anchor: Option<&IntentionAnchorV2> = policy.anchor.as_ref();
    evaluate(facts, &policy.config.policy, anchor, scope, window)
}

fn scope(run: &Run, phase: &Phase) -> Result<PhaseScope, Error> {
    let paths = PathRoots::new(phase.spec.scope.paths.clone())
        .map_err(|e| Error::Invalid { field: format!("phases.{}.scope", phase.id), why: e.to_string() })?;
    Ok(PhaseScope {
        paths,
        category: phase.spec.category.clone().unwrap_or_else(|| "feature".to_owned()),
        description: phase.spec.goal.clone(),
        claimed_risk: phase.spec.claimed_risk.map(|risk| match risk {
            ClaimedRisk::Low => Severity::Low,
            ClaimedRisk::Medium => Severity::Medium,
            ClaimedRisk::High => Severity::High,
            ClaimedRisk::Critical => Severity::Critical,
        }),
        sandboxed: !run.tainted,
    })
}

const CLASSES: [(PathClass, &str); 5] = [
    (PathClass::Allowed, "allowed"),
    (PathClass::Unlisted, "unlisted"),
    (PathClass::Protected, "protected"),
    (PathClass::Never, "never"),
    (PathClass::Forbidden, "forbidden"),
];

fn class_word(class: PathClass) -> &'static str {
    CLASSES.iter().find(|(c, _)| *c == class).map_or("forbidden", |(_, word)| word)
}

fn window(sums: &WindowSums) -> Window {
    let spent = |word: &str| Spent {
        run_size: sums.run.get(word).copied().unwrap_or(0),
        project_24h_size: sums.project_24h.get(word).copied().unwrap_or(0),
    };
    Window(CLASSES.iter().map(|(class, word)| (*class, spent(word))).collect())
}
