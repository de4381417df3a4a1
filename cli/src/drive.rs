//! Goes with runs until they are at rest: shows what happens, asks or tells about decisions, and knows when only a
//! person can move them on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use autopack_shared::wire::pb::{Blocker, Event, GetRunRequest, ListRequestsRequest, Phase, Request, Run};

use crate::commands::decide;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{CliError, During as _};
use crate::follow::{Follow, Step, is_terminal};
use crate::show::{event_json, event_text, first_line};
use crate::terminal::line;

mod rest;

pub(crate) use rest::{Outcome, Rest, exit_of, first_of};

/// How long an engine that was just reached may take to do what was asked for before; until then a run that seems to
/// wait may only not have been looked at.
const SETTLING: Duration = Duration::from_millis(700);

/// How long nothing may happen before it is asked why.
const STALL: Duration = Duration::from_secs(3);

/// The reason of a disk that is full.
const DISK_FULL: &str = "disk_full";

/// How long a step has to have failed before it is told: many pass by themselves.
const FAILING_MS: i64 = 2000;

/// How a command goes with its runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Wait for decisions instead of ending.
    pub(crate) wait: bool,
    /// Ask for decisions here.
    pub(crate) interactive: bool,
    /// Put the run's name before each line.
    pub(crate) prefix: bool,
    /// A pause that was asked for before is being taken back: it may still show for a moment.
    pub(crate) unpausing: bool,
    /// Events are the data of this command and go to stdout.
    pub(crate) data: bool,
}

/// Ctrl-C and SIGTERM: the person, or the system, leaves.
#[derive(Debug)]
pub(crate) struct Leave {
    interrupt: Signal,
    terminate: Signal,
}

impl Leave {
    /// Listens from now on.
    pub(crate) fn new() -> Result<Self, CliError> {
        let on = |kind| signal(kind).during("listen for signals");
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Completes at the next signal.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ends following within its grace; a second signal ends at once.
pub(crate) async fn close(follow: Follow<'_>, leave: &mut Leave) {
    tokio::select! {
        () = follow.close() => {}
        () = leave.asked() => {}
    }
}

/// Goes with runs that are followed.
pub(crate) struct Drive<'a, 'b> {
    ctx: &'a Context,
    follow: &'b mut Follow<'a>,
    manner: Manner,
    console: Console,
    open: BTreeSet<String>,
    done: BTreeMap<String, Outcome>,
    told: BTreeSet<String>,
    skipped: BTreeSet<String>,
    // What was seen may only be on its way to what was asked for.
    look_again: bool,
}

impl std::fmt::Debug for Drive<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Whether an event may have brought its run to rest.
fn moved(event: &Event) -> bool {
    ["run.", "request."].iter().any(|noun| event.kind.starts_with(noun))
}

impl<'a, 'b> Drive<'a, 'b> {
    /// Goes with these runs; they are followed already.
    pub(crate) fn new(ctx: &'a Context, follow: &'b mut Follow<'a>, runs: &[String], manner: Manner) -> Self {
        let console = Console::new(&ctx.out);
        let open = runs.iter().cloned().collect();
        let (done, told, skipped) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { ctx, follow, manner, console, open, done, told, skipped, look_again: false }
    }

    /// Until every run is at rest, or the person leaves.
    pub(crate) async fn until_rest(mut self, leave: &mut Leave) -> Result<BTreeMap<String, Outcome>, CliError> {
        // Who does not wait is to hear at once why nothing moves.
        let stall = if self.manner.wait { STALL } else { SETTLING };
        let (settled, stalled) = (sleep(SETTLING), sleep(stall));
        tokio::pin!(settled, stalled);
        // A run that is on its way says so itself when it comes to rest.
        let mut looked = self.all_on_their_way().await;
        self.console.status("starting");
        while !self.open.is_empty() {
            if std::mem::take(&mut self.look_again) {
                settled.set(sleep(SETTLING));
                looked = false;
            }
            tokio::select! {
                biased;
                () = leave.asked() => {
                    self.leave().await;
                    break;
                }
                step = self.follow.next() => match step? {
                    Some(Step::Event(event)) => {
                        self.show(&event)?;
                        stalled.as_mut().set(sleep(stall));
                        if event.kind == "worker.disk_full" {
                            self.stuck(&event.run_id, DISK_FULL, &event.text, "free some space")?;
                        }
                        let gone = looked && moved(&event) && tokio::select! {
                            looked = self.look(&event.run_id) => looked.map(|()| false)?,
                            () = leave.asked() => true,
                        };
                        if gone {
                            self.leave().await;
                            break;
                        }
                    }
                    Some(Step::Ended(run)) => self.rest(&run, Rest::Ended).await?,
                    Some(Step::Reconnected) => {
                        self.console.line("the engine went away; connected again and going on");
                        self.look_again = true;
                    }
                    None => break,
                },
                () = &mut stalled => {
                    stalled.as_mut().set(sleep(stall));
                    self.why_nothing_moves().await?;
                }
                () = &mut settled, if !looked => {
                    looked = true;
                    let gone = tokio::select! {
                        looked = self.look_at_all() => looked.map(|()| false)?,
                        () = leave.asked() => true,
                    };
                    if gone {
                        self.leave().await;
                        break;
                    }
                }
            }
        }
        self.console.done();
        Ok(self.done)
    }

    async fn all_on_their_way(&mut self) -> bool {
        for name in self.open.clone() {
            let state = self.follow.run(&name).await.map(|run| run.state).unwrap_or_default();
            if !matches!(state.as_str(), "CREATED" | "QUEUED" | "LEASED" | "RUNNING" | "CANCELLING") {
                return false;
            }
        }
        true
    }

    async fn leave(&mut self) {
        for run in std::mem::take(&mut self.open) {
            let found = self.follow.run(&run).await.unwrap_or_else(|_| Run { id: run.clone(), ..Run::default() });
            self.done.insert(run, Outcome { run: found, rest: Rest::Detached });
        }
    }

    fn show(&self, event: &Event) -> Result<(), CliError> {
        let out = &self.ctx.out;
        self.console.status(line(first_line(&event.text)));
        if self.manner.data && out.machine() {
            return out.event(&event_json(event));
        }
        let prefix = if self.manner.prefix { format!("{}  ", event.run_id) } else { String::new() };
        if self.manner.data {
            return self.console.data(&format!("{prefix}{}\n", event_text(event, out.data_color)));
        }
        if !out.machine() {
            self.console.line(&format!("{prefix}{}", event_text(event, out.color)));
        }
        Ok(())
    }

    /// Asks why nothing moves: what a step failed of is in no history.
    async fn why_nothing_moves(&mut self) -> Result<(), CliError> {
        let now = self.ctx.clock.wall().as_millis();
        for run in self.open.clone() {
            // A connection that broke is found, and made anew, by the next step.
            let Ok(found) = self.follow.run(&run).await else { continue };
            if let Some(why) = rest::resting(&found, now) {
                if !self.manner.wait {
                    self.console.line(&why);
                    self.rest(&run, Rest::Resting).await?;
                } else if self.told.insert(found.rests) {
                    self.console.line(&why);
                }
                continue;
            }
            let call = GetRunRequest { run_id: run.clone() };
            let Ok(answer) = self.follow.session()?.runs.explain(call).await else { continue };
            let blockers = answer.into_inner().blockers;
            let failing = |b: &&Blocker| b.failed && (b.kind == DISK_FULL || now - b.since_ms >= FAILING_MS);
            if let Some(blocker) = blockers.iter().find(failing) {
                self.stuck(&run, &blocker.kind, &blocker.what, &blocker.remedy)?;
            }
        }
        Ok(())
    }

    /// Nothing moves until a person sees to it: ends, or tells once whoever waits.
    fn stuck(&mut self, run: &str, kind: &str, why: &str, remedy: &str) -> Result<(), CliError> {
        let what = format!("the run {} cannot go on", line(run));
        if !self.manner.wait {
            let fix = if kind == DISK_FULL {
                "free some space and repeat the command: the run goes on where it stands".to_owned()
            } else {
                format!("{}; then repeat the command: the run goes on where it stands", line(remedy))
            };
            return Err(CliError::refused(kind.to_owned(), what, line(why), fix));
        }
        if self.told.insert(format!("{kind} {run}")) {
            self.console.line(&format!("{what}: {}; it needs: {}", line(why), line(remedy)));
        }
        Ok(())
    }

    async fn look_at_all(&mut self) -> Result<(), CliError> {
        for run in self.open.clone() {
            self.look(&run).await?;
        }
        Ok(())
    }

    /// Whether a run can only be moved on by a person, and what follows from it.
    async fn look(&mut self, name: &str) -> Result<(), CliError> {
        if !self.open.contains(name) {
            return Ok(());
        }
        // A connection that broke is found, and made anew, by the next step.
        let Ok(run) = self.follow.run(name).await else { return Ok(()) };
        if is_terminal(&run.state) {
            return Ok(());
        }
        match run.state.as_str() {
            "PAUSED" if std::mem::take(&mut self.manner.unpausing) => {
                self.look_again = true;
                Ok(())
            }
            "PAUSED" => self.rest(name, Rest::Paused).await,
            "BLOCKED" => self.rest(name, Rest::Blocked).await,
            "WAITING" => {
                let Ok(pending) = self.pending(name).await else { return Ok(()) };
                let undecided = |request: &str| pending.iter().any(|one| one.id == request);
                let decided = |phase: &Phase| match phase.state.as_str() {
                    "APPROVAL_PENDING" => !undecided(&phase.request_id),
                    "QUEUED" | "BLOCKED" | "APPLIED" | "ROLLED_BACK" | "FAILED" | "CANCELLED" => false,
                    _ => true,
                };
                if run.phases.iter().any(decided) {
                    // A decision is there and the director has not followed it yet.
                    return Ok(());
                }
                if !self.manner.wait {
                    return self.rest(name, Rest::Waiting).await;
                }
                if self.ask(&pending).await? { Ok(()) } else { self.rest(name, Rest::Waiting).await }
            }
            _ => Ok(()),
        }
    }

    async fn pending(&mut self, run: &str) -> Result<Vec<Request>, CliError> {
        let call = ListRequestsRequest { states: vec!["PENDING".to_owned()], run_id: run.to_owned(), limit: 0 };
        let answer = self.follow.session()?.governance.list(call).await;
        Ok(answer.during("list what waits for a decision")?.into_inner().requests)
    }

    /// Tells about requests, or asks for decisions on them. False when nobody is there to answer any more.
    async fn ask(&mut self, pending: &[Request]) -> Result<bool, CliError> {
        for request in pending {
            if self.manner.interactive {
                if !self.skipped.contains(&request.id) {
                    let session = self.follow.session()?;
                    let answer = decide::at_the_keyboard(self.ctx, session, &mut self.console, &request.id).await?;
                    match answer {
                        decide::Answer::Decided => {}
                        decide::Answer::Skipped => {
                            self.skipped.insert(request.id.clone());
                        }
                        decide::Answer::Gone => return Ok(false),
                    }
                }
            } else if self.told.insert(request.id.clone()) {
                for text in decide::invitation(request) {
                    self.console.line(&text);
                }
            }
        }
        self.console.status("waiting for a decision");
        Ok(true)
    }

    async fn rest(&mut self, name: &str, rest: Rest) -> Result<(), CliError> {
        if self.open.remove(name) {
            let run = self.follow.run(name).await?;
            self.follow.forget(name);
            self.done.insert(name.to_owned(), Outcome { run, rest });
        }
        Ok(())
    }
}
