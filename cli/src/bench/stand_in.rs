//! Workers that are not there: sessions over real gRPC that take grants and do nothing with them.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use autopack_shared::wire::pb::supervisor_message::Body as Told;
use autopack_shared::wire::pb::worker_message::Body as Said;
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::pb::{
    AttemptResult, Grant, Heartbeat, HeldLease, Hello, Outcome, SupervisorMessage, WorkerMessage,
};
use autopack_shared::wire::{MAX_MESSAGE, PROTOCOL};

use crate::connect::Wire;
use crate::exit::{CliError, During as _};

/// Messages that may wait for the stream.
const OUTBOX: usize = 256;

/// One session.
pub(super) struct StandIn {
    out: mpsc::Sender<WorkerMessage>,
    inbox: Streaming<SupervisorMessage>,
    beat: tokio::time::Interval,
    held: Vec<HeldLease>,
    seq: u64,
    /// When it said hello.
    pub(super) greeted: Instant,
}

/// Something that a session was told.
pub(super) enum News {
    /// A grant.
    Granted(Box<Grant>),
    /// A result was stored.
    Taken,
}

impl StandIn {
    /// Opens a session, and waits until the supervisor welcomes it.
    pub(super) async fn open(wire: Wire, name: &str, session: String, slots: u32) -> Result<Self, CliError> {
        let (out, outbox) = mpsc::channel(OUTBOX);
        let hello = Hello {
            worker_id: name.to_owned(),
            session,
            boot_id: "bench".to_owned(),
            protocol: PROTOCOL,
            slots,
            sandbox_level: "S0".to_owned(),
            held: Vec::new(),
            sandbox: None,
        };
        let first = WorkerMessage { seq: 1, body: Some(Said::Hello(hello)) };
        let greeted = Instant::now();
        out.try_send(first).map_err(|_| gone())?;
        let mut client = WorkerServiceClient::new(wire).max_decoding_message_size(MAX_MESSAGE);
        let inbox = client.session(ReceiverStream::new(outbox)).await.during("open a session")?.into_inner();
        let mut session = Self { out, inbox, beat: interval(2000), held: Vec::new(), seq: 1, greeted };
        let told = session.told().await?;
        let Told::Welcome(welcome) = told else { return Err(unexpected(&told)) };
        session.beat = interval(welcome.heartbeat_ms);
        Ok(session)
    }

    /// Serves until there is news.
    pub(super) async fn next(&mut self) -> Result<News, CliError> {
        loop {
            tokio::select! {
                _ = self.beat.tick() => {
                    let beat = Heartbeat { held: self.held.clone(), draining: false, sandbox: None };
                    self.say(Said::Heartbeat(beat))?;
                }
                message = self.inbox.message() => {
                    // Whatever else it is told is of no interest to it.
                    if let Some(news) = self.hear(body(message)?) {
                        return Ok(news);
                    }
                }
            }
        }
    }

    fn hear(&mut self, told: Told) -> Option<News> {
        if let Told::Grant(grant) = told {
            let (run_id, epoch, attempt) = (grant.run_id.clone(), grant.epoch, grant.attempt);
            self.held.push(HeldLease { run_id, epoch, attempt, ..HeldLease::default() });
            return Some(News::Granted(Box::new(grant)));
        }
        let Told::Ack(ack) = told else { return None };
        // Of no run: a heartbeat's.
        let of_run = !ack.run_id.is_empty();
        self.held.retain(|held| held.run_id != ack.run_id);
        of_run.then_some(News::Taken)
    }

    /// Ends an attempt as failed.
    pub(super) fn fail(&mut self, grant: &Grant) -> Result<(), CliError> {
        self.say(Said::Result(AttemptResult {
            run_id: grant.run_id.clone(),
            epoch: grant.epoch,
            phase_id: grant.phase_id.clone(),
            attempt: grant.attempt,
            outcome: Outcome::Failed.into(),
            reason: "bench".to_owned(),
            message: "nobody was there to do it".to_owned(),
            ..AttemptResult::default()
        }))
    }

    /// Leaves: the session ends at once.
    pub(super) async fn leave(mut self) -> Result<(), CliError> {
        self.say(Said::Goodbye(autopack_shared::wire::pb::Goodbye {}))?;
        // Until the supervisor ends the stream; what else it says is of no interest.
        while let Ok(Some(_)) = self.inbox.message().await {}
        Ok(())
    }

    async fn told(&mut self) -> Result<Told, CliError> {
        body(self.inbox.message().await)
    }

    fn say(&mut self, said: Said) -> Result<(), CliError> {
        self.seq += 1;
        self.out.try_send(WorkerMessage { seq: self.seq, body: Some(said) }).map_err(|_| gone())
    }
}

fn body(message: Result<Option<SupervisorMessage>, tonic::Status>) -> Result<Told, CliError> {
    message.during("hear the supervisor")?.and_then(|message| message.body).ok_or_else(gone)
}

fn gone() -> CliError {
    CliError::refused("unavailable", "a session broke", "the supervisor ended it", "try again; -v shows more")
}

fn unexpected(told: &Told) -> CliError {
    let why = format!("instead of a welcome it says {told:?}");
    CliError::refused("internal", "a session could not be opened", why, "this is a bug")
}

fn interval(millis: u32) -> tokio::time::Interval {
    let period = Duration::from_millis(u64::from(millis.max(100)));
    // Not all at the same moment.
    let first = period.mul_f64(rand::random::<f64>());
    tokio::time::interval_at(Instant::now() + first, period)
}
