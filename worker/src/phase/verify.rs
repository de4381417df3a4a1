//! The gate of a phase: each command on the change, once more where it fails, and on the untouched base where that is
//! not known yet. The first command that is red ends it.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span};

use autopack_shared::domain::gate::{
    Baseline, CommandReport, GateVerdict, MAX_BASELINE, Measured, Observation, Report, Source, command_digest, judge,
};
use autopack_shared::domain::ids::{Digest, Oid};
use autopack_shared::domain::run_file::{GateCommand, GateReport};
use autopack_shared::repo::mirror::Purpose;

use super::{Built, EventSink, Job, Runner};
use crate::builder::BuildError;
use crate::fetch::Cause;
use crate::gate::{self, GateContext, MAX_REPORT};
use crate::process::output::Output;
use crate::workspace::Workspace;

/// Bytes of all baselines that a result brings.
const MAX_LEARNED: usize = 2 * MAX_BASELINE;

/// Bytes of a baseline as JSON.
fn size_of(baseline: &Baseline) -> usize {
    serde_json::to_string(baseline).map_or(usize::MAX, |json| json.len())
}

/// What a gate came to, and what was learned of the base.
pub(super) struct Gated {
    pub(super) report: Report,
    pub(super) learned: Vec<Measured>,
}

/// What one gate works with.
struct Bench<'a> {
    runner: &'a Runner,
    job: &'a Job,
    sink: &'a EventSink,
    cancel: &'a CancellationToken,
    span: Span,
    /// The change.
    context: GateContext,
    learned: Vec<Measured>,
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
        let mut bench = Bench { runner: self, job, sink, cancel, span, context, learned: Vec::new() };
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
            report_limit: MAX_REPORT,
        })
    }
}

fn of(base: Option<&Baseline>, seen: &[Observation], command: &GateCommand) -> GateVerdict {
    judge(base, &seen.iter().collect::<Vec<_>>(), command.vanished)
}

impl Bench<'_> {
    async fn command(&mut self, command: &GateCommand, strict: bool) -> Result<CommandReport, BuildError> {
        self.sink.send("gate.started", format!("{}: {}", command.name, command.run)).await;
        let digest = command_digest(command).map_err(|e| BuildError::of("workspace", &e))?;
        // Before anything of the change has run here: what it leaves behind must not have a say in what it is
        // compared with. An exit code alone is compared only when it is bad, which is rare.
        let mut base = if strict { None } else { self.stored(digest) };
        if !strict && base.is_none() && command.report != GateReport::None {
            base = Some(self.measure(command, digest).await?);
        }
        let mut seen = vec![self.look(&self.context, command).await?];
        if !seen[0].failures().is_empty() {
            self.sink.send("gate.retried", format!("{} {}: once more", command.name, seen[0].end)).await;
            seen.push(self.look(&self.context, command).await?);
        }
        if !strict && base.is_none() && !of(None, &seen, command).green {
            base = Some(self.measure(command, digest).await?);
        }
        let known = base.as_ref().and_then(|base| base.as_ref().ok()).map(|(baseline, _)| baseline);
        if seen.len() > 1 && of(known, &seen, command).may_be_flaky(&self.flaky_of(command)) {
            self.sink.send("gate.retried", format!("{}: known to be flaky, once more", command.name)).await;
            seen.push(self.look(&self.context, command).await?);
        }
        let (baseline, source) = match base {
            None => (None, Source::NotNeeded),
            Some(Ok((baseline, source))) => (Some(baseline), source),
            Some(Err(why)) => (None, Source::Missing(why)),
        };
        let verdict = of(baseline.as_ref(), &seen, command);
        let ends = seen.iter().map(|run| run.end.clone()).collect();
        let tests = seen.last().map_or(0, Observation::count);
        let mut report = CommandReport::new(&command.name, ends, tests, verdict, source);
        report.baseline_digest = baseline.and_then(|baseline| Digest::of_json(&baseline).ok());
        self.tell(&report, &seen).await;
        Ok(report)
    }

    async fn tell(&self, report: &CommandReport, runs: &[Observation]) {
        self.sink.send(if report.green { "gate.passed" } else { "gate.failed" }, report.line()).await;
        let tail = runs.last().map(|run| run.tail.as_slice()).unwrap_or_default();
        for line in tail.iter().filter(|_| !report.green) {
            self.sink.send("gate.output", line.clone()).await;
        }
    }

    /// What is known to be flaky of a command.
    fn flaky_of(&self, command: &GateCommand) -> BTreeSet<String> {
        let known = self.job.flaky.iter().filter(|(name, _)| *name == command.name);
        known.map(|(_, test)| test.clone()).collect()
    }

    async fn look(&self, context: &GateContext, command: &GateCommand) -> Result<Observation, BuildError> {
        let mut seen = gate::observe(context, command, self.cancel).instrument(self.span.clone()).await?;
        // Patched code may print the secrets that it was given.
        seen.cover(|text| self.sink.hidden.cover(text));
        Ok(seen)
    }

    /// What is known of a command on the base.
    fn stored(&self, digest: Digest) -> Option<Result<(Baseline, Source), String>> {
        let mut known = self.job.baselines.iter().chain(&self.learned).filter(|known| known.command == digest);
        known.next().map(|known| Ok((known.baseline.clone(), Source::Stored)))
    }

    /// Runs a command on the untouched base. That there is no baseline is no failure of the gate: everything is
    /// charged then.
    async fn measure(
        &mut self,
        command: &GateCommand,
        digest: Digest,
    ) -> Result<Result<(Baseline, Source), String>, BuildError> {
        let Some(base) = self.job.gate_base else { return Ok(Err("no base was named".to_owned())) };
        self.sink.send("gate.baseline", format!("{} on the base {}", command.name, base.short())).await;
        let space = match self.base_space(base).await {
            Err(error) if self.cancel.is_cancelled() => return Err(error),
            Err(error) => return Ok(Err(format!("{}: {}", error.reason, error.message))),
            Ok(space) => space,
        };
        let measured = self.measure_in(command, &space).await;
        self.runner.workspaces.remove(space).await;
        let baseline = match measured? {
            Err(why) => return Ok(Err(why)),
            Ok(baseline) => baseline,
        };
        let baseline = if size_of(&baseline) > MAX_BASELINE { baseline.trimmed() } else { baseline };
        // What does not fit into the result's message is used here and measured again elsewhere.
        let told: usize = self.learned.iter().map(|known| size_of(&known.baseline)).sum();
        if told.saturating_add(size_of(&baseline)) <= MAX_LEARNED {
            self.learned.push(Measured { command: digest, baseline: baseline.clone() });
        }
        Ok(Ok((baseline, Source::Measured)))
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
