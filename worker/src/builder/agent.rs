//! The `agent` builder: a coding agent works in the tree. Known agents are presets; any other speaks the Agent Client
//! Protocol. What an agent says of itself, its usage too, is its own word.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::budget::{Stop, Unit};
use autopack_shared::domain::project::{BuilderConfig, BuilderKind, ModelConfig, Preset};
use autopack_shared::domain::usage::{Allowance, Usage};

use self::preset::{Ask, Plan};
use self::transcript::Transcript;
use super::command::last_lines;
use super::llm::{meter, provider_of};
use super::{BuildError, BuildReport, Builder, Task};
use crate::process::piped::{self, Heard, Lines, Writer};
use crate::process::{Cage, ProcEnd, ProcError, ProcReport, ProcSpec};
use crate::providers::{Provider, Providers};
use crate::sandbox::SandboxError;
use crate::scan::beneath::Beneath;

mod acp;
mod caged;
mod preset;
mod transcript;

/// Bytes of one line that an agent prints.
const MOST_LINE: usize = 4 << 20;

/// Bytes of the task in words: some agents take it as one argument.
const MOST_PROMPT: usize = 100_000;

/// Bytes of a file that an agent leaves about itself.
const MOST_TRAJECTORY: u64 = 32 << 20;

/// Runs an agent.
#[derive(Debug)]
pub struct AgentBuilder {
    preset: Preset,
    entry: Option<BuilderConfig>,
    providers: Arc<Providers>,
}

impl AgentBuilder {
    /// From the entry that a phase names, or from the preset of that name.
    ///
    /// # Errors
    /// `unsupported` when there is neither.
    pub fn make(
        name: &str,
        entry: Option<&BuilderConfig>,
        providers: Arc<Providers>,
    ) -> Result<Box<dyn Builder>, BuildError> {
        let entry = entry.filter(|entry| entry.kind == BuilderKind::Agent);
        let preset = match entry {
            Some(entry) => Some(entry.preset.unwrap_or(Preset::Acp)),
            // Without an entry nobody says what would be started.
            None => Preset::named(name).filter(|preset| *preset != Preset::Acp),
        };
        match preset {
            Some(preset) => Ok(Box::new(Self { preset, entry: entry.cloned(), providers })),
            None => {
                let known: Vec<&str> = Preset::ALL.iter().map(|preset| preset.as_str()).collect();
                let text = format!(
                    "autopack.toml at the fork commit has no [builders.{name}] with kind = \"agent\", and it is none of {}",
                    known.join(", ")
                );
                Err(BuildError::new("unsupported", text))
            }
        }
    }

    fn model(&self, attempt: u32) -> Result<Option<(&ModelConfig, &Provider)>, BuildError> {
        let Some(model) = self.entry.as_ref().and_then(|entry| entry.model_of(attempt)) else { return Ok(None) };
        Ok(Some((model, provider_of(&self.providers, model)?)))
    }
}

#[async_trait]
impl Builder for AgentBuilder {
    async fn build(&self, task: &Task, tree: &Path, cancel: &CancellationToken) -> Result<BuildReport, BuildError> {
        if matches!(task.cage, Cage::None) && !task.insecure_no_sandbox {
            let text = "an agent builder needs a sandbox; --insecure-no-sandbox runs it as you, marks the run, and makes \
                        every patch of it need approval";
            return Err(BuildError::new("sandbox_required", text).unasked());
        }
        if let Some(stop) = nothing_left(task.allowance) {
            return Err(BuildError::exhausted(stop, "nothing is left that an agent could spend").unasked());
        }
        let egress = caged::egress(&task.cage);
        // In a sandbox the provider is somewhere else, and has no key.
        let shown = egress.and_then(|egress| egress.shown());
        let asked = self.model(task.attempt).map_err(BuildError::unasked)?;
        let model = caged::model(&task.cage, asked, shown.as_ref()).map_err(BuildError::unasked)?;
        let prompt = prompt(task);
        let files = named_files(tree, task);
        let ask = Ask {
            prompt: &prompt,
            files: &files,
            scratch: &task.scratch,
            model,
            program: self.entry.as_ref().map_or(&[], |entry| &entry.argv),
            allowance: task.allowance,
        };
        let plan = preset::plan(self.preset, &ask);
        let mut transcript = Transcript::of(self.preset);
        let done = self.run(plan, task, tree, cancel, &mut transcript).await;
        let (notes, mut usage, failed) = transcript.done();
        if let Some((model, _)) = model {
            usage.cost_micros = usage.cost_micros.max(meter::cost(model, usage));
            // By its price list, where the tokens are known.
            usage.unsaid.cost &= usage.unsaid.tokens;
        }
        let credential = model.map(|(model, _)| model.provider.as_str());
        usage = caged::measured(egress, usage);
        let fail = |error: BuildError| Err(caged::cause(egress, credential, error).after(usage));
        match (done, failed) {
            (Err(error), _) => fail(error),
            (Ok(()), Some(why)) => fail(BuildError::new("builder_failed", why)),
            (Ok(()), None) => Ok(BuildReport { notes, usage, credential: credential.map(str::to_owned), patch: None }),
        }
    }
}

impl AgentBuilder {
    async fn run(
        &self,
        plan: Plan,
        task: &Task,
        tree: &Path,
        cancel: &CancellationToken,
        transcript: &mut Transcript,
    ) -> Result<(), BuildError> {
        let spec = spec(&plan, task, tree).inspect_err(|_| transcript.never_began())?;
        let ended = if self.preset == Preset::Acp {
            let allow = self.entry.as_ref().map_or(&[][..], |entry| &entry.allow);
            let root = caged::tree(&task.cage, tree);
            let host = root.and_then(|root| acp::Host::new(tree, root, &task.phase.scope.paths, allow));
            let host = host.inspect_err(|_| transcript.never_began())?;
            let prompt = prompt(task);
            let heard = &mut *transcript;
            let talk = |writer, lines| async {
                let order = acp::Order { prompt: &prompt, time: task.timeout(), cancel };
                acp::talk(host, (writer, lines), order, heard).await
            };
            // The talk ends by itself with its lease, so that it can say so to the agent first.
            let by_itself = CancellationToken::new();
            let talked = piped::converse(&spec, MOST_LINE, &by_itself, talk).await;
            let (said, report) = talked.map_err(|error| not_run(error, transcript))?;
            match said {
                // Its turn has ended; how it ends when nobody talks to it any more says nothing.
                Some(done) => done,
                None => ended(None, report, task),
            }
        } else {
            let (allowance, stdin) = (task.allowance, plan.stdin.clone());
            let heard = &mut *transcript;
            let talk = move |writer, lines| read_all(writer, lines, stdin, allowance, heard);
            let talked = piped::converse(&spec, MOST_LINE, cancel, talk).await;
            let (said, report) = talked.map_err(|error| not_run(error, transcript))?;
            ended(said.transpose()?, report, task)
        };
        if self.preset == Preset::MiniSweAgent {
            let root = Beneath::open(&task.scratch).map_err(|e| BuildError::of("workspace", &e))?;
            if let Ok(bytes) = root.read("trajectory.json", MOST_TRAJECTORY) {
                transcript.trajectory(&bytes);
            }
        }
        ended
    }
}

/// All that an agent could spend, where nothing of it is left.
fn nothing_left(allowance: Allowance) -> Option<Stop> {
    let all =
        [(Unit::Calls, allowance.calls), (Unit::Tokens, allowance.tokens), (Unit::CostMicros, allowance.cost_micros)];
    all.into_iter().find(|(_, left)| *left == Some(0)).map(|(unit, _)| Stop::Unit(unit))
}

fn not_run(error: ProcError, transcript: &mut Transcript) -> BuildError {
    if matches!(error, ProcError::Start { .. } | ProcError::Sandbox(_)) {
        transcript.never_began();
    }
    let reason = match &error {
        ProcError::Start { source, .. } if source.kind() == ErrorKind::NotFound => "unsupported",
        ProcError::Sandbox(SandboxError::NoProgram { .. }) => {
            let text = format!("{error}; worker.sandbox_paths names folders that are there in it (docs/BUILDERS.md)");
            return BuildError::new("unsupported", text);
        }
        ProcError::Sandbox(SandboxError::Failed(_)) => error.reason(),
        ProcError::Start { .. } | ProcError::Empty | ProcError::Wait { .. } => "builder_failed",
    };
    BuildError::new(reason, error.to_string())
}

/// How an agent ended, as a result. `said` is what its talk came to, none where it was cut off.
fn ended(said: Option<bool>, report: ProcReport, task: &Task) -> Result<(), BuildError> {
    let fail = |reason, text: String| Err(BuildError::new(reason, text));
    match report.end {
        ProcEnd::Timeout => fail("timeout", format!("it was still running after {} s and was killed", task.seconds)),
        ProcEnd::Cancelled => fail("cancelled", "the lease ended".to_owned()),
        ProcEnd::OutOfMemory => fail("resource_limit", "it wanted more memory than it may have".to_owned()),
        ProcEnd::Overfull(why) => fail("resource_limit", why),
        ProcEnd::Signal(signal) => fail("builder_failed", format!("signal {signal} ended it")),
        ProcEnd::Exit(0) if said.is_some() => Ok(()),
        ProcEnd::Exit(0) => fail("builder_failed", "it left something behind that held its output".to_owned()),
        ProcEnd::Exit(code) => {
            let words = last_lines(&report.tail, 10).join(" | ");
            fail("builder_failed", format!("it exited with {code}: {words}"))
        }
    }
}

/// Gives an agent what it reads, and reads all it prints.
async fn read_all(
    mut writer: Writer,
    mut lines: Lines,
    stdin: Option<String>,
    allowance: Allowance,
    transcript: &mut Transcript,
) -> Result<bool, BuildError> {
    // A program that prints before it has read everything must not stand still.
    let write = async {
        if let Some(text) = stdin {
            let _unread = writer.write(&text).await;
        }
        drop(writer);
    };
    let read = async {
        loop {
            match lines.next().await {
                Heard::Line(line) => transcript.line(&line),
                Heard::TooLong => transcript.say("(a line that was too long)"),
                Heard::TooMuch => return Err(BuildError::new("log_budget", "it printed more than it may")),
                Heard::End => return Ok(true),
            }
            if let Some((stop, why)) = overspent(transcript.usage(), allowance) {
                return Err(BuildError::exhausted(stop, why));
            }
        }
    };
    tokio::join!(write, read).1
}

/// What an agent has used beyond what it may, by its own word.
fn overspent(used: Usage, allowance: Allowance) -> Option<(Stop, String)> {
    let over = |unit, what: &str, used: u64, most: Option<u64>| {
        let why = |most| (Stop::Unit(unit), format!("it used {used} {what}, and {most} are allowed"));
        most.filter(|most| used > *most).map(why)
    };
    over(Unit::Tokens, "tokens", used.tokens(), allowance.tokens)
        .or_else(|| over(Unit::Calls, "calls", used.calls, allowance.calls))
        .or_else(|| over(Unit::CostMicros, "millionths of the currency", used.cost_micros, allowance.cost_micros))
}

fn spec(plan: &Plan, task: &Task, tree: &Path) -> Result<ProcSpec, BuildError> {
    let failed = |e: std::io::Error| BuildError::of("workspace", &e);
    let home = task.scratch.join("home");
    std::fs::create_dir_all(&home).map_err(failed)?;
    for (name, text) in &plan.files {
        std::fs::write(task.scratch.join(name), text).map_err(failed)?;
    }
    // A home of its own: what lies in the operator's is none of an agent's business.
    let mut env: Vec<(String, String)> = task.env.iter().filter(|(name, _)| name != "HOME").cloned().collect();
    env.extend([
        ("HOME".to_owned(), home.display().to_string()),
        ("TMPDIR".to_owned(), task.scratch.display().to_string()),
        ("AUTOPACK_RUN".to_owned(), task.run.clone()),
        ("AUTOPACK_PHASE".to_owned(), task.phase.id.to_string()),
        ("AUTOPACK_ATTEMPT".to_owned(), task.attempt.to_string()),
    ]);
    env.extend(plan.env.iter().cloned());
    let cage = caged::with_variables(&task.cage, &plan.env);
    Ok(ProcSpec {
        argv: plan.argv.clone(),
        cwd: tree.to_path_buf(),
        env,
        lease: task.lease.clone(),
        timeout: task.timeout(),
        log_budget: task.log_budget,
        frozen: task.frozen.clone(),
        output: task.output.clone(),
        cage,
    })
}

/// The task in words.
fn prompt(task: &Task) -> String {
    let list = |title: &str, lines: &[String]| {
        let lines: String = lines.iter().map(|line| format!("- {line}\n")).collect();
        if lines.is_empty() { lines } else { format!("\n{title}:\n{lines}") }
    };
    let scope = &task.phase.scope;
    let reads: Vec<String> = scope.read_only_context.iter().map(|one| one.path().to_owned()).collect();
    let from = task.feedback.len().saturating_sub(10);
    let text = format!(
        "{}\n{}{}{}{}{}\nChange files in the current folder only, do not commit, and do not ask back: nobody answers.\n",
        task.phase.goal,
        list("Only these paths may be changed", &scope.paths),
        list("Read these first", &reads),
        list("These must exist afterwards", &task.phase.deliverables),
        list("These must be defined afterwards", &task.phase.symbols),
        list("Earlier attempts failed, and this is why", &task.feedback[from..]),
    );
    let mut end = text.len().min(MOST_PROMPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Files of the tree that the scope or the deliverables name one by one.
fn named_files(tree: &Path, task: &Task) -> Vec<String> {
    let named = task.phase.scope.paths.iter().chain(&task.phase.deliverables);
    let plain = named.filter(|path| !path.contains(['*', '?', '[', '{']) && !path.starts_with('-'));
    let mut files: Vec<String> = plain.filter(|path| tree.join(path).is_file()).cloned().collect();
    files.dedup();
    files
}
