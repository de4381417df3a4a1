//! The `llm` builder: a model is asked for a change. It runs in this process, starts nothing and touches no file but by
//! what the strict readers of an answer let through, so it needs no sandbox.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::project::{BuilderConfig, BuilderKind, ModelConfig};
use autopack_shared::domain::secret;

use self::answer::Answer;
use self::call::{Question, Reply};
use self::meter::Meter;
use self::patience::{Patience, Trouble};
use self::prompt::Prompt;
use super::{BuildError, BuildReport, Builder, Task};
use crate::providers::{Provider, Providers};

mod answer;
mod apply;
mod call;
mod context;
pub(crate) mod meter;
mod narrow;
mod patience;
mod prompt;

/// How long one call may take: a provider that says nothing is asked again.
const CALL: Duration = Duration::from_secs(600);

/// What is kept of an attempt's time for what comes after the model, so that a reason can still be given.
const MARGIN: Duration = Duration::from_secs(2);

/// Characters of an answer that are looked at for people.
const SAID: usize = 4000;

/// Asks models.
#[derive(Debug)]
pub struct LlmBuilder {
    entry: BuilderConfig,
    providers: Arc<Providers>,
}

impl LlmBuilder {
    /// From the entry that a phase names.
    ///
    /// # Errors
    /// `unsupported` when there is no such entry.
    pub fn make(
        name: &str,
        entry: Option<&BuilderConfig>,
        providers: Arc<Providers>,
    ) -> Result<Box<dyn Builder>, BuildError> {
        match entry.filter(|entry| entry.kind == BuilderKind::Llm) {
            Some(entry) => Ok(Box::new(Self { entry: entry.clone(), providers })),
            None => {
                let text = format!("autopack.toml at the fork commit has no [builders.{name}] with kind = \"llm\"");
                Err(BuildError::new("unsupported", text))
            }
        }
    }

    fn model(&self, attempt: u32) -> Result<(&ModelConfig, &Provider), BuildError> {
        let Some(model) = self.entry.model_of(attempt) else {
            return Err(BuildError::new("unsupported", "the builder lists no model"));
        };
        Ok((model, provider_of(&self.providers, model)?))
    }
}

/// The provider of a model, with its key where it has one.
///
/// # Errors
/// `unsupported` for one that this worker does not know, `key_missing` for one whose key is not here.
pub(super) fn provider_of<'a>(providers: &'a Providers, model: &ModelConfig) -> Result<&'a Provider, BuildError> {
    let Some(provider) = providers.get(&model.provider) else {
        let known = providers.names().join(", ");
        let text = format!("this worker knows no provider {:?}; it knows {known}", model.provider);
        return Err(BuildError::new("unsupported", text));
    };
    match (&provider.key, &provider.key_name) {
        (None, Some(name)) => {
            let text = format!("this worker has no key for {}: {name} is not set", model.provider);
            Err(BuildError::new("key_missing", text))
        }
        (Some(_), _) | (None, None) => Ok(provider),
    }
}

#[async_trait]
impl Builder for LlmBuilder {
    async fn build(&self, task: &Task, tree: &Path, cancel: &CancellationToken) -> Result<BuildReport, BuildError> {
        let (model, provider) = self.model(task.attempt).map_err(BuildError::unasked)?;
        let mut meter = Meter::new(task.allowance);
        let done = self.ask_and_apply((model, provider), task, tree, cancel, &mut meter).await;
        match done {
            Ok(report) => {
                let credential = Some(model.provider.to_string());
                Ok(BuildReport { usage: meter.used(), credential, ..report })
            }
            Err(error) => Err(error.after(meter.used())),
        }
    }
}

impl LlmBuilder {
    async fn ask_and_apply(
        &self,
        whom: (&ModelConfig, &Provider),
        task: &Task,
        tree: &Path,
        cancel: &CancellationToken,
        meter: &mut Meter,
    ) -> Result<BuildReport, BuildError> {
        let (folder, phase) = (tree.to_path_buf(), task.phase.clone());
        let room = usize::try_from(self.entry.context_bytes).unwrap_or(usize::MAX);
        let shown = blocking(move || context::gather(&folder, &phase, room)).await?;
        let shown = shown.map_err(|e| BuildError::of("workspace", &e))?;
        let prompt = prompt::write(task, self.entry.answer, &shown);
        let reply = ask(whom, &prompt, task, cancel, meter).await?;
        let used = meter.used();
        let mut notes = vec![format!(
            "{} of {}: {} tokens in, {} out, {} calls; {} files shown",
            whom.0.model,
            whom.0.provider,
            used.input_tokens,
            used.output_tokens,
            used.calls,
            shown.files.len()
        )];
        if reply.cut {
            let text =
                format!("the answer was cut off after {} tokens; write less, or in smaller steps", used.output_tokens);
            return Err(BuildError::new("malformed_patch", text));
        }
        let answer = answer::read(&reply.text, self.entry.answer)
            .map_err(|wrong| BuildError::new("malformed_patch", wrong.to_string()))?;
        notes.extend(said(&reply.text));
        match answer {
            Answer::Diff(diff) => Ok(BuildReport { notes, patch: Some(diff), ..BuildReport::default() }),
            Answer::Edits(edits) => {
                notes.extend(edits.iter().take(50).map(|edit| format!("writes {}", edit.path())));
                let (tree, scope) = (tree.to_path_buf(), task.phase.scope.paths.clone());
                blocking(move || apply::edits(&tree, &edits, &scope)).await??;
                Ok(BuildReport { notes, ..BuildReport::default() })
            }
        }
    }
}

/// Asks until there is an answer, nothing may be spent any more, or the attempt's time is up.
async fn ask(
    (model, provider): (&ModelConfig, &Provider),
    prompt: &Prompt,
    task: &Task,
    cancel: &CancellationToken,
    meter: &mut Meter,
) -> Result<Reply, BuildError> {
    let deadline = Instant::now() + task.timeout().saturating_sub(MARGIN.min(task.timeout() / 10));
    let mut patience = Patience::default();
    loop {
        let most_tokens =
            meter.reserve(model, prompt.len()).map_err(|spent| BuildError::exhausted(spent.stop, spent.why))?;
        let timeout = deadline.saturating_duration_since(Instant::now()).min(CALL);
        let question = Question { provider, model, prompt, most_tokens, timeout };
        let answered = tokio::select! {
            answered = call::ask(&question) => answered,
            () = cancel.cancelled() => {
                // It was sent, and may have been worked on.
                meter.charge(model, (None, Some(0)), (prompt.len(), 0));
                return Err(BuildError::new("cancelled", "the lease ended"));
            }
        };
        let trouble = match answered {
            Ok(reply) => {
                meter.charge(model, reply.said, (prompt.len(), reply.text.len()));
                return Ok(reply);
            }
            Err(trouble) => trouble,
        };
        match &trouble {
            Trouble::Busy { .. } | Trouble::Away { .. } | Trouble::Refused { .. } => meter.charge_refused(),
            Trouble::Cut { .. } => meter.charge_cut(model, prompt.len(), most_tokens),
            Trouble::Garbage { .. } => meter.charge(model, (None, Some(0)), (prompt.len(), 0)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let pause = patience.next(&trouble, left).map_err(|end| {
            let text = format!("{} of {}: {}; {end}", model.model, model.provider, trouble.why());
            BuildError::new(trouble.reason(), text).of_credential(model.provider.to_string(), trouble.after())
        })?;
        tracing::info!(model = %model.model, why = trouble.why(), ?pause, "a provider is asked again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return Err(BuildError::new("cancelled", "the lease ended")),
        }
    }
}

/// The first lines of what a model said besides its change, for people.
fn said(text: &str) -> Vec<String> {
    // As a whole first: the lines of a private key have no mark of their own.
    let text = secret::redact(&text.chars().take(SAID).collect::<String>());
    let words = text.lines().take_while(|line| !line.starts_with("=== ") && !line.starts_with("```"));
    let lines = words.filter(|line| !line.trim().is_empty()).take(5);
    lines.map(|line| line.chars().take(300).collect()).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| BuildError::new("builder_failed", format!("it panicked: {e}")))
}
