//! The gate of a phase: each command on the change, once more where it fails, and on the untouched base where that is
//! not known yet. The first command that is red ends it.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span};

use autopack_shared::domain::gate::{
    Baseline, CommandReport, GateVerdict, MAX_BASELINE, Measured, Observation, Report, Setting, Source, Vanished,
    command_digest, judge,
};
use autopack_shared::domain::ids::{Digest, Oid};
use autopack_shared::domain::run_file::{GateCommand, GateReport};
use autopack_shared::repo::mirror::Purpose;

use super::{Built, EventSink, Job, Runner};
use crate::builder::BuildError;
use crate::fetch::Cause;
use crate::gate::{self, GateContext};
use crate::process::output::Output;
use crate::workspace::Workspace;

/// Bytes of all baselines that a result brings.
const MAX_LEARNED: usize = 2 * MAX_BASELINE;

/// Bytes of what a command prints that are kept at least, however many there are.
const LEAST_ROOM: usize = 64 * 1024;

/// Bytes of a baseline as JSON.
fn size_of(baseline: &Baseline) -> usize {
    serde_json::to_string(baseline).map_or(usize::MAX, |json| json.len())
}

/// What a gate came to, and what was learned of the base.
pub(super) struct Gated {
    pub(super) report: Report,
    pub(super) learned: Vec<Measured>,
}

/// What is known of a base, and how.
type Base = (Option<Baseline>, Source);

/// What one gate works with.
struct Bench<'a> {
    runner: &'a Runner,
    job: &'a Job,
    sink: &'a EventSink,
    cancel: &'a CancellationToken,
    span: Span,
    /// The change.
    context: GateContext,
    /// Where its commands run, on the change as on the base.
    setting: Setting,
    learned: Vec<Measured>,
    /// What the command prints that is run now.
    output: Output,
    /// Bytes of it that are kept.
    room: usize,
}

impl Runner {
    pub(super) async fn verify(
        &self,
        job: &Job,
        sink: &EventSink,
        cancel: &CancellationToken,
        used: &mut Option<Workspace>,
    ) -> Result<Built, BuildError> {
        let space = self.workspaces.create(&job.run, job.epoch, job.attempt, job.base, Purpose::Gate);
        let space = used.insert(space.instrument(info_span!("workspace")).await?);
        self.provide(job, space, sink).await?;
        sink.ready().await;
        let span = info_span!("gate");
        let context = self.gate_context(job, space, &span).await?;
        let setting = self.setting(job).await;
        let (learned, output) = (Vec::new(), Output::default());
        // What one builder may have, the commands of a gate have together.
        let room = (self.transcript_limit / job.gate.len().max(1)).max(LEAST_ROOM);
        let mut bench = Bench { runner: self, job, sink, cancel, span, context, setting, learned, output, room };
        let base = job.gate_base.unwrap_or(Oid::ZERO);
        let mut report = Report { green: true, base, commands: Vec::new() };
        for (at, command) in job.gate.iter().enumerate() {
            let done = bench.command(command, command.is_strict(at >= job.gate_of_project)).await?;
            report.green = done.green;
            report.commands.push(done);
            if !report.green {
                break;
            }
        }
        sink.tell_contacts(&bench.context.cage).await;
        Ok(Built { gate: Some(Gated { report, learned: bench.learned }), ..Built::of(Oid::ZERO) })
    }

    async fn gate_context(&self, job: &Job, space: &Workspace, span: &Span) -> Result<GateContext, BuildError> {
        let (cage, env) = self.confine(job, space, span, (!job.gate.is_empty(), &Output::default())).await?;
        Ok(GateContext {
            cage,
            tree: space.tree().to_path_buf(),
            scratch: space.scratch().to_path_buf(),
            env,
            lease: self.mark(job),
            log_budget: self.log_budget,
            frozen: self.frozen.clone(),
            report_limit: self.report_limit,
        })
    }
}

fn of(base: Option<&Baseline>, seen: &[Observation], command: &GateCommand) -> GateVerdict {
    judge(base, &seen.iter().collect::<Vec<_>>(), command.vanished)
}

impl Bench<'_> {
    async fn command(&mut self, command: &GateCommand, strict: bool) -> Result<CommandReport, BuildError> {
        self.sink.send("gate.started", format!("{}: {}", command.name, command.run)).await;
        self.output = Output::recording(self.room, self.sink.hidden.clone());
        let digest = command_digest(command, &self.setting).map_err(|e| BuildError::of("workspace", &e))?;
        let has_tests = command.report != GateReport::None;
        // Where the base excuses nothing, it may still tell which tests vanished.
        let excuses = !strict && self.setting.doubt().is_none();
        let wanted = excuses || (has_tests && (!strict || command.vanished == Vanished::Block));
        // Before anything of the change has run here: what it leaves behind must not have a say in what it is
        // compared with. An exit code alone is compared only when it is bad, which is rare.
        let mut base = if wanted { self.stored(command, digest) } else { None };
        if wanted && base.is_none() && has_tests {
            base = Some(self.measure(command, digest).await?);
        }
        let mut seen = vec![self.look(&self.context, command).await?];
        if !seen[0].failures().is_empty() {
            self.sink.send("gate.retried", format!("{} {}: once more", command.name, seen[0].end)).await;
            seen.push(self.look(&self.context, command).await?);
        }
        if wanted && base.is_none() && !of(None, &seen, command).green {
            base = Some(self.measure(command, digest).await?);
        }
        let (baseline, mut source) = base.unwrap_or((None, Source::NotNeeded));
        let baseline = if excuses { baseline } else { baseline.map(Baseline::strict) };
        if seen.len() > 1 && of(baseline.as_ref(), &seen, command).may_be_flaky(&self.flaky_of(command)) {
            self.sink.send("gate.retried", format!("{}: known to be flaky, once more", command.name)).await;
            seen.push(self.look(&self.context, command).await?);
        }
        let verdict = of(baseline.as_ref(), &seen, command);
        if let Some(why) = self.setting.doubt().filter(|_| !strict && !verdict.new.is_empty()) {
            source = Source::Missing(why.to_owned());
        }
        let ends = seen.iter().map(|run| run.end.clone()).collect();
        let tests = seen.last().map_or(0, Observation::count);
        let mut report = CommandReport::new(&command.name, ends, tests, verdict, source);
        report.baseline_digest = baseline.and_then(|baseline| Digest::of_json(&baseline).ok());
        let printed = self.keep().await;
        report.transcript = printed.as_ref().map(|(digest, _)| *digest);
        self.tell(&report, &seen, printed.map(|(_, bytes)| bytes)).await;
        Ok(report)
    }

    /// Has kept what the command printed in all of its runs: its digest, and how much it was.
    async fn keep(&mut self) -> Option<(Digest, u64)> {
        let output = std::mem::take(&mut self.output);
        output.close();
        // A thread that panics has nothing to show.
        let printed = tokio::task::spawn_blocking(move || output.printed()).await.ok().flatten()?;
        let bytes = printed.bytes;
        let digest = self.runner.keep(self.job, printed, self.sink, self.cancel).await?;
        Some((digest.parse().ok()?, bytes))
    }

    async fn tell(&self, report: &CommandReport, runs: &[Observation], printed: Option<u64>) {
        self.sink.send(if report.green { "gate.passed" } else { "gate.failed" }, report.line()).await;
        let tail = runs.last().map(|run| run.tail.as_slice()).unwrap_or_default();
        for line in tail.iter().filter(|_| !report.green) {
            self.sink.send("gate.output", line.clone()).await;
        }
        if let Some(bytes) = printed {
            let (run, phase, attempt, gate) = (&self.job.run, &self.job.phase, self.job.attempt, &report.name);
            let whole = format!("autopack runs transcript {run} {phase} --attempt {attempt} --gate {gate:?}");
            self.sink.send("gate.printed", format!("{gate} printed {bytes} bytes: {whole}")).await;
        }
    }

    /// What is known to be flaky of a command.
    fn flaky_of(&self, command: &GateCommand) -> BTreeSet<String> {
        let known = self.job.flaky.iter().filter(|(name, _)| *name == command.name);
        known.map(|(_, test)| test.clone()).collect()
    }

    async fn look(&self, context: &GateContext, command: &GateCommand) -> Result<Observation, BuildError> {
        let of = if context.tree == self.context.tree { "the change" } else { "the base" };
        self.output.note(&format!("$ {}   (on {of})", command.run));
        let look = gate::observe(context, command, &self.output, self.cancel);
        let mut seen = look.instrument(self.span.clone()).await?;
        // Patched code may print the secrets that it was given.
        seen.cover(|text| self.sink.hidden.cover(text));
        Ok(seen)
    }

    /// What is known of a command on the base; nothing where it is too little to tell what vanished, and that blocks.
    fn stored(&self, command: &GateCommand, digest: Digest) -> Option<Base> {
        let mut known = self.job.baselines.iter().chain(&self.learned).filter(|known| known.command == digest);
        let baseline = &known.next()?.baseline;
        let tells = command.vanished == Vanished::Report || (baseline.whole && self.setting.doubt().is_none());
        tells.then(|| (Some(baseline.clone()), Source::Stored))
    }

    /// Runs a command on the untouched base. That it shows nothing there is no failure of the gate: everything is
    /// charged then. That it could not be brought there says nothing of the change, and the gate has not answered.
    async fn measure(&mut self, command: &GateCommand, digest: Digest) -> Result<Base, BuildError> {
        let Some(base) = self.job.gate_base else { return Ok((None, Source::Missing("no base was named".to_owned()))) };
        self.sink.send("gate.baseline", format!("{} on the base {}", command.name, base.short())).await;
        let space = self.base_space(base).await?;
        let measured = self.measure_in(command, &space).await;
        self.runner.workspaces.remove(space).await;
        let baseline = match measured? {
            Err(why) => return Ok((None, Source::Missing(why))),
            Ok(baseline) => baseline,
        };
        // What others are told is bounded; this gate goes by all of it.
        let told = if self.setting.doubt().is_some() { baseline.clone().strict() } else { baseline.clone() };
        let told = if size_of(&told) > MAX_BASELINE { told.trimmed() } else { told };
        let before: usize = self.learned.iter().map(|known| size_of(&known.baseline)).sum();
        if before.saturating_add(size_of(&told)) <= MAX_LEARNED {
            self.learned.push(Measured { command: digest, baseline: told });
        }
        Ok((Some(baseline), Source::Measured))
    }

    async fn base_space(&self, base: Oid) -> Result<Workspace, BuildError> {
        let job = self.job;
        let cause = Cause::Lease { run: job.run.clone(), epoch: job.epoch };
        self.runner.fetch(cause, base).await?;
        self.runner.workspaces.create(&job.run, job.epoch, job.attempt, base, Purpose::Baseline).await
    }

    async fn measure_in(
        &self,
        command: &GateCommand,
        space: &Workspace,
    ) -> Result<Result<Baseline, String>, BuildError> {
        self.runner.provide(self.job, space, self.sink).await?;
        let context = self.runner.gate_context(self.job, space, &self.span).await?;
        let mut seen = vec![self.look(&context, command).await?];
        if !seen[0].failures().is_empty() {
            seen.push(self.look(&context, command).await?);
        }
        Ok(Baseline::of(&seen.iter().collect::<Vec<_>>()))
    }
}
