//! Follows runs as they go. Survives the end of the engine it watches: on a broken stream it connects again, becoming
//! the owner where nobody is and the command drives, and goes on after the last event it saw.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt as _, StreamMap};
use tonic::{Code, Status};

use autopack_shared::wire::pb::{Event, GetRunRequest, Run, WatchRequest};

use crate::connect::{Need, Session, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _};

/// Connections that may break one after the other without a single event between them.
const PATIENCE: u32 = 20;

/// What happened to one of the followed runs.
#[derive(Debug)]
pub(crate) enum Step {
    /// Something happened.
    Event(Event),
    /// It is at its end; there will be no more events.
    Ended(String),
    /// The engine went away and another one was found or opened.
    Reconnected,
}

/// What a stream yields: an event, a failure, or its end.
enum Item {
    Got(Box<Result<Event, Status>>),
    End,
}

type Events = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// Runs that are followed over one connection.
pub(crate) struct Follow<'a> {
    ctx: &'a Context,
    need: Need,
    // None only while another engine is looked for, and after that failed.
    session: Option<Session>,
    streams: StreamMap<String, Events>,
    seen: BTreeMap<String, u64>,
    failures: u32,
}

impl std::fmt::Debug for Follow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<'a> Follow<'a> {
    /// Follows nothing yet.
    pub(crate) fn new(ctx: &'a Context, need: Need, session: Session) -> Self {
        Self { ctx, need, session: Some(session), streams: StreamMap::new(), seen: BTreeMap::new(), failures: 0 }
    }

    /// The connection.
    pub(crate) fn session(&mut self) -> Result<&mut Session, CliError> {
        self.session.as_mut().ok_or_else(|| {
            let why = "the engine went away and no other could be reached";
            CliError::refused(
                "unavailable",
                "not connected",
                why,
                "repeat the command: the run goes on where it stands",
            )
        })
    }

    /// Ends following.
    pub(crate) async fn close(self) {
        drop(self.streams);
        if let Some(session) = self.session {
            session.close().await;
        }
    }

    /// Follows one more run, from after an event on.
    pub(crate) async fn add(&mut self, run: &str, after: u64) -> Result<(), CliError> {
        self.seen.insert(run.to_owned(), after);
        let call = WatchRequest { run_id: run.to_owned(), after_seq: after, once: false };
        let events = self.session()?.runs.watch(call).await.during(format!("follow the run {run}"))?.into_inner();
        let events = events.map(|event| Item::Got(Box::new(event))).chain(tokio_stream::once(Item::End));
        self.streams.insert(run.to_owned(), Box::pin(events));
        Ok(())
    }

    /// Follows one more run, from what happens next on. What is there already is not shown again to somebody who goes
    /// on with a run.
    pub(crate) async fn add_from_now(&mut self, run: &str) -> Result<(), CliError> {
        let last = self.last_seq(run).await?;
        self.add(run, last).await
    }

    /// The number of a run's last event so far.
    pub(crate) async fn last_seq(&mut self, run: &str) -> Result<u64, CliError> {
        let call = WatchRequest { run_id: run.to_owned(), after_seq: 0, once: true };
        let what = format!("read the history of the run {run}");
        let mut events = self.session()?.runs.watch(call).await.during(what.clone())?.into_inner();
        let mut last = 0;
        while let Some(event) = events.next().await {
            last = event.during(what.clone())?.seq;
        }
        Ok(last)
    }

    /// The run as it stands.
    pub(crate) async fn run(&mut self, run: &str) -> Result<Run, CliError> {
        let call = GetRunRequest { run_id: run.to_owned() };
        Ok(self.session()?.runs.get(call).await.during(format!("look at the run {run}"))?.into_inner())
    }

    /// The next thing that happens; none when nothing is followed any more. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Option<Step>, CliError> {
        let Some((run, item)) = self.streams.next().await else {
            return if self.seen.is_empty() { Ok(None) } else { self.again().await.map(Some) };
        };
        match item {
            Item::Got(event) => match *event {
                Ok(event) => {
                    self.failures = 0;
                    self.seen.insert(run, event.seq);
                    Ok(Some(Step::Event(event)))
                }
                Err(status) if is_broken(&status) => self.again().await.map(Some),
                Err(status) => Err(status).during(format!("follow the run {run}")),
            },
            Item::End => match self.run(&run).await {
                Ok(found) if is_terminal(&found.state) => {
                    self.forget(&run);
                    Ok(Some(Step::Ended(run)))
                }
                // The engine is leaving: its streams end before the runs do.
                Ok(_) | Err(CliError::Engine { .. }) => self.again().await.map(Some),
                Err(error) => Err(error),
            },
        }
    }

    /// Stops following a run.
    pub(crate) fn forget(&mut self, run: &str) {
        self.streams.remove(run);
        self.seen.remove(run);
    }

    /// Connects again and follows what was followed.
    async fn again(&mut self) -> Result<Step, CliError> {
        self.failures += 1;
        if self.failures > PATIENCE {
            return Err(CliError::refused(
                "unavailable",
                "the engine keeps going away",
                format!("{PATIENCE} connections in a row broke before anything happened"),
                "autopack doctor; then repeat the command: the run goes on where it stands",
            ));
        }
        tokio::time::sleep(Duration::from_millis(25 * u64::from(self.failures.min(40)))).await;
        self.streams.clear();
        // Closed first: an engine in this process holds the lock that the next one needs.
        if let Some(session) = self.session.take() {
            session.close().await;
        }
        let session = connect(self.ctx, self.need).await?;
        if self.need == Need::Passive && session.owns() {
            // Nobody drives any more: an engine that only records would be watched for ever.
            session.close().await;
            let run = self.seen.keys().next().map_or("RUN", String::as_str);
            let why = "its process ended, and no other one drives the run";
            return Err(CliError::refused(
                "unavailable",
                "the engine went away",
                why,
                format!("autopack runs resume {run}"),
            ));
        }
        self.session = Some(session);
        for (run, after) in self.seen.clone() {
            match self.add(&run, after).await {
                Ok(()) => {}
                Err(CliError::Engine { status, .. }) if is_broken(&status) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Step::Reconnected)
    }
}

/// Whether a failure is the connection's and not the call's.
fn is_broken(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Aborted => true,
        // What a connection that is cut in the middle of a message gives.
        Code::Internal => std::error::Error::source(status).is_some(),
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// Whether a run's state word is its last.
pub(crate) fn is_terminal(state: &str) -> bool {
    matches!(state, "SUCCEEDED" | "FAILED" | "CANCELLED")
}
