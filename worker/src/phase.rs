//! One lease from grant to result: worktree, builder, collection, upload; or worktree and gate.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use autopack_shared::domain::gate::Measured;
use autopack_shared::domain::ids::{Oid, PhaseId, ProjectId, RunId};
use autopack_shared::domain::project::BuilderConfig;
use autopack_shared::domain::record::LeasePurpose;
use autopack_shared::domain::run_file::{BuilderSpec, GateCommand, PhaseSpec};
use autopack_shared::domain::sandbox::{SandboxLevel, SandboxProfile};
use autopack_shared::domain::trace::TraceContext;
use autopack_shared::domain::usage::{Allowance, Usage};
use autopack_shared::repo::mirror::Purpose;
use autopack_shared::wire::pb;

use crate::builder::{self, BuildError, Task, Work};
use crate::contact::Frozen;
use crate::fetch::{self, Cause, Claim};
use crate::line::Line;
use crate::process::output::Output;
use crate::providers::Providers;
use crate::provision::Provision;
use crate::sandbox::Sandbox;
use crate::upload;
use crate::watch;
use crate::workspace::{Workspace, Workspaces};

mod cage;
mod data;
mod ending;
mod made;
mod output;
mod printed;
mod provide;
mod room;
mod sink;
mod trace;
mod verify;
mod way_out;

pub use data::JobData;
pub(crate) use ending::last_word;
pub use output::JobOutput;
pub use sink::EventSink;

/// What a grant asks for, read and checked.
#[derive(Debug, Clone)]
pub struct Job {
    /// The lease.
    pub lease: String,
    /// The project.
    pub project: ProjectId,
    /// The run.
    pub run: RunId,
    /// Its epoch.
    pub epoch: u64,
    /// The phase.
    pub phase: PhaseId,
    /// The attempt.
    pub attempt: u32,
    /// Build or verify.
    pub purpose: LeasePurpose,
    /// The commit to start from.
    pub base: Oid,
    /// The trusted base, which says what is brought besides the commit; none where the supervisor names none.
    pub fork: Option<Oid>,
    /// The phase's description.
    pub spec: PhaseSpec,
    /// The builder entry it names.
    pub entry: Option<BuilderConfig>,
    /// Gate commands, for verify.
    pub gate: Vec<GateCommand>,
    /// How many of them come first and are the project's.
    pub gate_of_project: usize,
    /// The untouched base that their failures are compared with.
    pub gate_base: Option<Oid>,
    /// What is known of it.
    pub baselines: Vec<Measured>,
    /// Tests that are known to be flaky, each with its command's name.
    pub flaky: Vec<(String, String)>,
    /// What earlier attempts were told.
    pub feedback: Vec<String>,
    /// Builders may run without a sandbox.
    pub insecure_no_sandbox: bool,
    /// The weakest sandbox that it may run in.
    pub min_sandbox: SandboxLevel,
    /// How much that lets through at most.
    pub sandbox_profile: SandboxProfile,
    /// Where its processes keep the run's data.
    pub data: JobData,
    /// What its models may be asked for.
    pub allowance: Allowance,
    /// The secrets that the project's configuration names for it.
    pub secrets: Vec<String>,
    /// The hosts that the project's configuration names for it.
    pub egress: Vec<String>,
    /// Whether the project's gate has secrets that this one does not get.
    pub secrets_withheld: bool,
    /// The grant in its trace.
    pub trace: Option<TraceContext>,
}

impl Job {
    /// Reads a grant.
    ///
    /// # Errors
    /// The field that cannot be read, and why.
    pub fn read(grant: &pb::Grant) -> Result<Self, String> {
        let json = |field: &str, error: serde_json::Error| format!("{field}: {error}");
        let purpose = match grant.purpose.as_str() {
            "build" => LeasePurpose::Build,
            "verify" => LeasePurpose::Verify,
            other => return Err(format!("purpose: {other:?} is neither build nor verify")),
        };
        let entry = match grant.builder_json.as_str() {
            "" => None,
            text => Some(serde_json::from_str(text).map_err(|e| json("builder_json", e))?),
        };
        let gate = match grant.gate_json.as_str() {
            "" => Vec::new(),
            text => serde_json::from_str(text).map_err(|e| json("gate_json", e))?,
        };
        let baselines = list(&grant.baselines_json).map_err(|e| json("baselines_json", e))?;
        let flaky = list(&grant.flaky_json).map_err(|e| json("flaky_json", e))?;
        let gate_base = match grant.gate_base.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|e| format!("gate_base: {e}"))?),
        };
        let fork = match grant.fork.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|e| format!("fork: {e}"))?),
        };
        let allowance = match grant.allowance_json.as_str() {
            "" => Allowance::default(),
            text => serde_json::from_str(text).map_err(|e| json("allowance_json", e))?,
        };
        Ok(Self {
            lease: grant.lease_id.clone(),
            project: grant.project.parse().map_err(|e| format!("{e}"))?,
            run: grant.run_id.parse().map_err(|e| format!("{e}"))?,
            epoch: grant.epoch,
            phase: grant.phase_id.parse().map_err(|e| format!("{e}"))?,
            attempt: grant.attempt,
            purpose,
            base: grant.base.parse().map_err(|e| format!("{e}"))?,
            fork,
            spec: serde_json::from_str(&grant.phase_json).map_err(|e| json("phase_json", e))?,
            entry,
            gate,
            gate_of_project: usize::try_from(grant.gate_of_project).unwrap_or(usize::MAX),
            gate_base,
            baselines,
            flaky,
            feedback: grant.feedback.clone(),
            insecure_no_sandbox: grant.insecure_no_sandbox,
            min_sandbox: cage::asked(&grant.min_sandbox)?,
            sandbox_profile: cage::profile(&grant.sandbox_profile)?,
            data: JobData::read(grant.run_data.as_ref())?,
            allowance,
            secrets: grant.secrets.clone(),
            egress: grant.egress.clone(),
            secrets_withheld: grant.secrets_withheld,
            trace: grant.trace.clone().map(|trace| TraceContext { parent: trace.traceparent, state: trace.tracestate }),
        })
    }
}

/// A list as JSON, none when empty.
fn list<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>, serde_json::Error> {
    if text.is_empty() { Ok(Vec::new()) } else { serde_json::from_str(text) }
}

/// Runs jobs.
pub struct Runner {
    /// Where worktrees are made.
    pub workspaces: Arc<Workspaces>,
    /// The supervisor, for transfers.
    pub line: Arc<Line>,
    /// Whether commits are fetched before they are worked on.
    pub fetches: bool,
    /// This worker and its session, for uploads.
    pub worker: String,
    /// The session.
    pub session: String,
    /// Marks the processes of this worker: its root.
    pub mark: String,
    /// Where each run has a folder for its own database.
    pub run_data: Option<PathBuf>,
    /// What a process of a job finds in its environment.
    pub env: Vec<(String, String)>,
    /// What confines processes; none where there is none.
    pub sandbox: Option<Arc<Sandbox>>,
    /// Bytes of output that are kept of one process.
    pub log_budget: u64,
    /// Bytes of what a builder prints that are kept for people; of what the commands of a gate print, together.
    pub transcript_limit: usize,
    /// Bytes that the report of a gate's command may have.
    pub report_limit: u64,
    /// Whom its models are asked of.
    pub providers: Arc<Providers>,
    /// What the operator provides.
    pub provision: Arc<Provision>,
    /// Bounds of the way out of its sandboxes.
    pub egress: crate::egress::Limits,
    /// Whether its processes stand still.
    pub frozen: Frozen,
}

/// What a builder came to, before its tree is taken.
#[derive(Debug, Default)]
struct Left {
    /// A unified diff that is the change; none where it is in the worktree.
    patch: Option<String>,
    notes: Vec<String>,
    /// None where no builder was asked.
    usage: Option<Usage>,
    credential: Option<String>,
}

struct Built {
    tree: Oid,
    notes: Vec<String>,
    /// None where no builder was asked.
    usage: Option<Usage>,
    credential: Option<String>,
    /// What the gate came to.
    gate: Option<verify::Gated>,
}

impl Built {
    /// A tree that came about without a builder, or none.
    fn of(tree: Oid) -> Self {
        Self { tree, notes: Vec::new(), usage: None, credential: None, gate: None }
    }
}

impl Runner {
    /// Runs a job and sends its result last, unless it was cancelled: then nobody waits for one.
    pub async fn run(&self, job: Job, out: mpsc::Sender<JobOutput>, cancel: CancellationToken) {
        let began = tokio::time::Instant::now();
        let sink = EventSink::new(job.clone(), out.clone(), began);
        sink.send("lease.started", format!("{:?} of {} on {}", job.purpose, job.phase, self.worker).to_lowercase())
            .await;
        let mut used = None;
        let helper =
            self.sandbox.as_ref().filter(|_| job.insecure_no_sandbox).map(|sandbox| sandbox.config().helper.as_path());
        let work = Box::pin(self.done(&job, &sink, &cancel, &mut used));
        let done = watch::beside(helper, &self.mark(&job), work).await;
        if !cancel.is_cancelled() {
            let mut result = ending::result(&job, sink.said(), sink.told(done));
            result.transcript = sink.transcript();
            result.notes.splice(0..0, sink.contacts());
            result.message = sink.hidden.cover(&result.message);
            result.notes.iter_mut().for_each(|note| *note = sink.hidden.cover(note));
            let _gone = out.send(JobOutput::Done(Box::new(result))).await;
        }
        // Removing many files takes long, and nobody waits for it.
        if let Some(space) = used {
            self.workspaces.remove(space).await;
        }
    }

    /// Sees to it that a commit is here.
    pub(crate) async fn fetch(&self, cause: Cause, commit: Oid) -> Result<(), BuildError> {
        if !self.fetches {
            return Ok(());
        }
        let Some(have) = self.workspaces.lacks(commit).await? else { return Ok(()) };
        let claim = Claim { worker: self.worker.clone(), session: self.session.clone(), cause };
        let pack = fetch::pack(&self.line, &claim, commit, &have).await?;
        self.workspaces.take(commit, pack).await
    }

    async fn build(
        &self,
        job: &Job,
        sink: &EventSink,
        cancel: &CancellationToken,
        used: &mut Option<Workspace>,
    ) -> Result<Left, BuildError> {
        let work = builder::make(&job.spec.builder, job.entry.as_ref(), &self.providers)?;
        let builder = match work {
            Work::Import(diff) => return Ok(Left { patch: Some(diff), ..Left::default() }),
            Work::Build(builder) => builder,
        };
        let space = self.workspaces.create(&job.run, job.epoch, job.attempt, job.base, Purpose::Build);
        let space = used.insert(space.instrument(info_span!("workspace")).await?);
        // A model is shown files of the tree: what is provided is for processes, and none of a model's business.
        if !matches!(job.spec.builder, BuilderSpec::Llm { .. }) {
            self.provide(job, space, sink).await?;
        }
        sink.ready().await;
        self.build_in(job, builder.as_ref(), space, sink, cancel).await
    }

    async fn build_in(
        &self,
        job: &Job,
        builder: &dyn builder::Builder,
        space: &Workspace,
        sink: &EventSink,
        cancel: &CancellationToken,
    ) -> Result<Left, BuildError> {
        let span = info_span!("build");
        let output = Output::recording(self.transcript_limit, sink.hidden.clone());
        let starts = cage::starts_processes(&job.spec.builder);
        let (cage, env) = self.confine(job, space, &span, (starts, &output)).await?;
        let task = Task {
            run: job.run.to_string(),
            phase: job.spec.clone(),
            attempt: job.attempt,
            feedback: job.feedback.clone(),
            lease: self.mark(job),
            insecure_no_sandbox: job.insecure_no_sandbox,
            cage,
            env,
            scratch: space.scratch().to_path_buf(),
            log_budget: self.log_budget,
            output,
            frozen: self.frozen.clone(),
            seconds: builder::seconds(&job.spec, job.entry.as_ref()),
            allowance: job.allowance,
        };
        sink.asks();
        let work = builder.build(&task, space.tree(), cancel).instrument(span);
        let (report, printed) = printed::told(work, &task.output, sink).await;
        sink.tell_contacts(&task.cage).await;
        // What an agent says is heard, not printed.
        let silent = printed.is_none() || matches!(job.spec.builder, BuilderSpec::Agent { .. });
        if let Some(printed) = printed
            && let Some(digest) = self.keep(job, printed, sink, cancel).await
        {
            sink.has_transcript(digest);
        }
        let report = report?;
        // What a process printed was told already.
        for note in report.notes.iter().filter(|_| silent) {
            sink.send("builder.output", note.clone()).await;
        }
        Ok(Left { patch: report.patch, notes: report.notes, usage: Some(report.usage), credential: report.credential })
    }

    async fn upload(&self, job: &Job, tree: Oid, cancel: &CancellationToken) -> Result<(), BuildError> {
        let pack = self.workspaces.pack(job.base, tree).await?;
        let header = pb::UploadHeader {
            worker_id: self.worker.clone(),
            session: self.session.clone(),
            run_id: job.run.to_string(),
            epoch: job.epoch,
            phase_id: job.phase.to_string(),
            attempt: job.attempt,
            base: job.base.to_string(),
            result_tree: tree.to_string(),
            size: pack.len() as u64,
        };
        tokio::select! {
            sent = upload::send(&self.line, header, pack) => sent,
            () = cancel.cancelled() => Err(BuildError::new("cancelled", "the lease ended")),
        }
    }
}
