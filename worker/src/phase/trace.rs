//! The spans of a lease: it belongs to the grant that it came by, and a builder goes on with the span it is run in.

use tracing::Span;

use autopack_shared::domain::record::LeasePurpose;
use autopack_shared::runtime::telemetry::context;
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::{EventSink, Job};

impl Job {
    /// The span of the whole lease.
    pub(crate) fn span(&self) -> Span {
        let purpose = self.purpose_word();
        let span = tracing::info_span!(
            "lease", run = %self.run, phase = %self.phase, epoch = self.epoch, attempt = self.attempt, purpose
        );
        context::adopt(&span, &context::kept(self.trace.as_ref()));
        if !span.is_disabled() {
            context::describe(
                &span,
                [
                    ("cicd.pipeline.run.id", self.run.to_string()),
                    ("cicd.pipeline.task.name", self.phase.to_string()),
                    ("cicd.pipeline.task.run.id", self.lease.clone()),
                    ("vcs.ref.base.revision", self.base.to_string()),
                ],
            );
        }
        span
    }

    /// The variables by which a process goes on with the trace: from a span of ours, or without telemetry from where
    /// the supervisor left off.
    pub(super) fn variables(&self, span: &Span) -> Vec<(String, String)> {
        context::variables(context::of(span).or_else(|| self.trace.clone()))
    }

    /// `build` or `verify`.
    pub(super) fn purpose_word(&self) -> &'static str {
        match self.purpose {
            LeasePurpose::Build => "build",
            LeasePurpose::Verify => "verify",
        }
    }
}

impl EventSink {
    /// The worktree is ready.
    pub(super) async fn ready(&self) {
        metrics().workspace_ready(self.job.purpose_word(), self.began.elapsed());
        if self.job.purpose == LeasePurpose::Build {
            self.send("workspace.ready", "a worktree is ready").await;
        }
    }
}
