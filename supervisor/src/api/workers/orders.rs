//! What a session brings to its worker. Grants and ends of leases are read from the store, so that it does not matter
//! which supervisor granted them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;

use autopack_shared::domain::feedback::Feedback;
use autopack_shared::domain::ids::{FencingToken, Oid, RunId};
use autopack_shared::domain::record::{Lease, LeasePurpose, Phase, Run};
use autopack_shared::domain::run_data;
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::state::LeaseState;
use autopack_shared::wire::pb::{self, supervisor_message};

use super::gate;
use super::record::Sent;
use super::seen::Seen;
use super::session::SessionTask;
use crate::api::Core;
use crate::error::Error;
use crate::hub::HubError;
use crate::run_data::{RunDataError, Stint};
use crate::sandbox;
use crate::store::Tx;
use crate::workers::WorkerOrder;

/// How long it may take to put one grant together: less than a look at all that is new. What is opened for it is open
/// when it is looked at again.
const GRANT: Duration = Duration::from_secs(1);

/// How long a session waits for the way to a run's data: it is known here, unless the server was never reached.
const URL: Duration = Duration::from_millis(800);

impl SessionTask {
    /// Leases that are new, and those that ended other than by the worker's own result; and what the worker has been
    /// brought once all of it is sent.
    pub(super) async fn news(&self, seen: &Seen, sent: &Sent) -> Result<(Vec<supervisor_message::Body>, Sent), Error> {
        let leases = seen.of(&self.worker, &self.session);
        let mut after = sent.clone();
        let mut news = Vec::new();
        for (run, epoch) in sent {
            if !leases.iter().any(|l| l.run == *run && l.epoch == *epoch) {
                after.remove(run);
                let reason = "the lease ended".to_owned();
                news.push(supervisor_message::Body::Revoke(pb::Revoke {
                    run_id: run.to_string(),
                    epoch: *epoch,
                    reason,
                }));
            }
        }
        let new: Vec<&Lease> = leases
            .iter()
            .filter(|lease| lease.state == LeaseState::Held && sent.get(&lease.run) != Some(&lease.epoch))
            .collect();
        let rows = self.rows(&new).await?;
        // Together, and each with a time of its own: one project's hub that hangs keeps no other's grant.
        let made = new.iter().zip(rows).map(|(lease, rows)| self.grant_in_time(lease, rows));
        for (lease, made) in new.iter().zip(join_all(made).await) {
            match made {
                Ok(Some(grant)) => {
                    after.insert(lease.run.clone(), lease.epoch);
                    news.push(supervisor_message::Body::Grant(grant));
                }
                Ok(None) => {}
                // One project that cannot be read holds up no other.
                Err(error) => tracing::warn!(run = %lease.run, %error, "a grant could not be brought"),
            }
        }
        match self.scan_order(seen.surveys.clone()).await {
            Ok(order) => news.extend(order.map(supervisor_message::Body::Scan)),
            Err(error) => tracing::warn!(worker = %self.worker, %error, "a scan could not be brought"),
        }
        Ok((news, after))
    }

    /// The rows that grants are made of, in one look for all of them; none for one that moved on meanwhile.
    async fn rows(&self, leases: &[&Lease]) -> Result<Vec<Option<(Run, Phase, Oid)>>, Error> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<RunId> = leases.iter().map(|lease| lease.run.clone()).collect();
        let mut tx = self.cores.store().read().await?;
        let mut runs: BTreeMap<RunId, Run> =
            tx.runs_of(&ids).await?.into_iter().map(|run| (run.id.clone(), run)).collect();
        let phases = tx.phases_of(&ids).await?;
        let mut rows = Vec::with_capacity(leases.len());
        for lease in leases {
            let phase = phases.iter().find(|phase| phase.run == lease.run && phase.id == lease.phase);
            let (Some(run), Some(phase)) = (runs.remove(&lease.run), phase) else {
                rows.push(None);
                continue;
            };
            // Without a commit it is on its way elsewhere: the lease has ended too, or the next look finds it whole.
            let base = base_of(tx.as_mut(), lease, phase).await?;
            rows.push(base.map(|base| (run, phase.clone(), base)));
        }
        Ok(rows)
    }

    async fn grant_in_time(&self, lease: &Lease, rows: Option<(Run, Phase, Oid)>) -> Result<Option<pb::Grant>, Error> {
        let silent = || HubError::Silent { project: lease.project.to_string(), seconds: GRANT.as_secs() };
        let made = tokio::time::timeout(GRANT, Box::pin(self.grant(lease, rows))).await;
        made.unwrap_or_else(|_| Err(silent().into()))
    }

    /// All that the worker needs, with the builder entry and the gate of the fork commit.
    async fn grant(&self, lease: &Lease, rows: Option<(Run, Phase, Oid)>) -> Result<Option<pb::Grant>, Error> {
        let Some((run, mut phase, base)) = rows else { return Ok(None) };
        let spend = self.cores.store().read().await?.spend(&lease.run, lease.epoch).await?;
        let core = self.cores.named(&lease.project).await?;
        let policy = core.book.at_with(run.fork_commit, run.file.anchor.as_deref(), &run.registered).await?;
        let builder = entry_of(&phase.spec.builder).and_then(|name| policy.config.builders.get(name));
        let commands = policy.gate_of(&phase);
        let gate_base = gate::base_of(&run, &phase, lease.purpose);
        let flaky = gate::flaky(core.store.as_ref(), &run.project, gate_base, &commands).await?;
        let setting = gate::setting(&policy, &run, &phase, lease.purpose);
        let baselines = gate::known(core.store.as_ref(), &run.project, gate_base, &commands, &setting).await?;
        let allowance = spend.as_ref().map(|spend| spend.allowance(core.governing.budgets.call));
        if let Some(seconds) = spend.and_then(|spend| spend.granted.seconds) {
            phase.spec.timeout = phase.spec.timeout.min(seconds.max(1));
        }
        let min_sandbox = sandbox::needed(&policy, &run, &phase, lease.purpose);
        let run_data = Some(run_data(&core, &run, &phase, lease, commands.len()).await?);
        let json = |value: Result<String, serde_json::Error>| value.map_err(|e| Error::Bug(e.to_string()));
        Ok(Some(pb::Grant {
            lease_id: lease.id.to_string(),
            run_id: lease.run.to_string(),
            project: lease.project.to_string(),
            epoch: lease.epoch,
            ws_epoch: lease.ws_epoch,
            phase_id: lease.phase.to_string(),
            attempt: lease.attempt,
            purpose: format!("{:?}", lease.purpose).to_lowercase(),
            base: base.to_string(),
            fork: run.fork_commit.to_string(),
            phase_json: json(serde_json::to_string(&phase.spec))?,
            builder_json: builder.map(|b| json(serde_json::to_string(b))).transpose()?.unwrap_or_default(),
            gate_json: json(serde_json::to_string(&commands))?,
            feedback: phase.feedback.iter().map(Feedback::render).collect(),
            feedback_json: json(serde_json::to_string(&phase.feedback))?,
            objects_dir: String::new(),
            insecure_no_sandbox: run.tainted,
            run_data,
            allowance_json: allowance.map(|a| json(serde_json::to_string(&a))).transpose()?.unwrap_or_default(),
            min_sandbox: min_sandbox.map(|level| level.to_string()).unwrap_or_default(),
            sandbox_profile: policy.config.policy.sandbox_profile().as_str().to_owned(),
            gate_of_project: u32::try_from(policy.config.gate.commands.len()).unwrap_or(u32::MAX),
            gate_base: gate_base.map(|base| base.to_string()).unwrap_or_default(),
            baselines_json: if baselines.is_empty() { String::new() } else { json(serde_json::to_string(&baselines))? },
            flaky_json: if flaky.is_empty() { String::new() } else { json(serde_json::to_string(&flaky))? },
            egress: policy.config.egress.asked_by(lease.purpose, &phase.spec),
            secrets_withheld: setting.withheld,
            secrets: setting.secrets.into_iter().collect(),
            trace: lease
                .trace
                .clone()
                .or(run.trace)
                .map(|trace| pb::TraceContext { traceparent: trace.parent, tracestate: trace.state }),
        }))
    }
}

/// The builder entry of the project's configuration that a phase names.
const fn entry_of(builder: &BuilderSpec) -> Option<&String> {
    match builder {
        BuilderSpec::Command { name: Some(name), .. }
        | BuilderSpec::Agent { preset: name }
        | BuilderSpec::Llm { model: name } => Some(name),
        BuilderSpec::Command { name: None, .. }
        | BuilderSpec::Patch { .. }
        | BuilderSpec::Landing { .. }
        | BuilderSpec::Remediation { .. } => None,
    }
}

/// Where the processes of a lease keep the run's data. What was to be on the server is there or nowhere.
async fn run_data(core: &Core, run: &Run, phase: &Phase, lease: &Lease, gate: usize) -> Result<pb::RunData, Error> {
    let kind = run.run_data.as_str().to_owned();
    if run.run_data.is_sqlite() {
        return Ok(pb::RunData { kind, url: String::new() });
    }
    if !run_data::starts_processes(lease.purpose, phase, gate) {
        return Ok(pb::RunData { kind: "none".to_owned(), url: String::new() });
    }
    let Some(databases) = &core.run_data else { return Err(run_data::Unoffered { asked: run.run_data }.into()) };
    let incarnation = core.store.read().await?.incarnation().await?;
    let token = FencingToken { incarnation, epoch: lease.epoch };
    let stint = Stint { run: run.id.clone(), model: run.run_data, token };
    let late = || RunDataError::Unavailable { why: "it did not answer".to_owned(), hint: "check that it runs" };
    let url = tokio::time::timeout(URL, databases.url(&stint)).await.map_err(|_| late())??;
    Ok(pb::RunData { kind, url: url.0 })
}

/// The commit that a lease starts from; none while its phase is on its way elsewhere.
pub(super) async fn base_of(tx: &mut dyn Tx, lease: &Lease, phase: &Phase) -> Result<Option<Oid>, Error> {
    Ok(match (lease.purpose, &phase.apply) {
        (LeasePurpose::Build, _) => phase.base,
        (LeasePurpose::Verify, Some(apply)) => tx.apply(apply).await?.map(|apply| apply.new),
        (LeasePurpose::Verify, None) => None,
    })
}

/// An order as a message.
pub(super) fn order_message(order: WorkerOrder) -> supervisor_message::Body {
    match order {
        WorkerOrder::Revoke { run, epoch, reason } => {
            supervisor_message::Body::Revoke(pb::Revoke { run_id: run, epoch, reason })
        }
        WorkerOrder::Drain { undo } => supervisor_message::Body::Drain(pb::Drain { undo }),
        WorkerOrder::Verdict { run, phase, attempt, verdict, request } => {
            supervisor_message::Body::Verdict(pb::VerdictNotice {
                run_id: run,
                phase_id: phase,
                attempt,
                verdict,
                request_id: request.unwrap_or_default(),
            })
        }
    }
}
