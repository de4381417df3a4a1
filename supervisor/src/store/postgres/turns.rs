//! Turns: what many transactions of one run each begin with is read at once, and what they write is written at once, in
//! one commit. Nobody waits for company: whoever comes while a batch is under way goes with the next one. Each gets an
//! answer of its own, and never before it is durable; what cannot go with the others goes by itself (`sheet.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _, query};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::audit::AuditRecord;
use autopack_shared::domain::ids::{Fence, PhaseId, RunId, Timestamp};
use autopack_shared::domain::record::Event;
use autopack_shared::runtime::process::{OnError, Tasks, caught};
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::audit::{Head, NOTHING, digest};
use super::base::{Core, is_gone};
use super::error::{away, failed, within};
use super::puts::{self, Put};
use super::sheet::Sheet;
use super::tx::{PostgresTx, Sql, integer, maybe_integer, maybe_text, natural, read_living_at, text, unknown};
use super::{SILENCE, TURN};
use crate::store::batches::Gathered;
use crate::store::{StoreError, StoreResult, doc};

/// How many go together at most.
const MOST: usize = 64;
/// How many may wait for the next batch before whoever comes waits to be let in.
const WAITING: usize = 1024;
/// Batches that are written at the same time: while one waits for the disk the server works on the other. A run always
/// goes the same way, so two turns of it are never in each other's.
const WRITERS: usize = 2;
/// Connections of their own: one that reads, and those that write. What the server has to prepare in a connection is
/// then prepared once, and what comes while a batch is under way makes the next one large.
pub(super) const LANES: u32 = 3;
/// How long somebody waits for an answer: for the batch that is under way and for the own one.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(SILENCE.as_secs() * 2 + TURN.as_secs());

/// What a turn is shown.
pub(super) struct Page {
    pub(super) found: Gathered,
    /// The last line of the run's history.
    pub(super) last: Option<Event>,
    /// The head of its chain.
    pub(super) head: Head,
}

/// Rows as they came: whoever asked reads them.
struct Shown {
    row: PgRow,
    now: Timestamp,
    place: (String, u32),
    /// The epochs of the scopes asked for.
    epochs: Vec<Option<u64>>,
}

struct Ask {
    scopes: Vec<String>,
    run: RunId,
    phase: Option<PhaseId>,
    answer: oneshot::Sender<StoreResult<Shown>>,
}

/// What one turn writes.
struct Job {
    fences: Vec<Fence>,
    run: RunId,
    /// Of its chain, as it was shown.
    head: Head,
    puts: Vec<Put>,
    records: Vec<AuditRecord>,
    at: Timestamp,
    answer: oneshot::Sender<StoreResult<Done>>,
}

/// How a turn ended.
pub(super) enum Done {
    /// It is committed.
    Together,
    /// Nothing of it was written: it has to be done by itself.
    Alone(Vec<Put>),
}

/// Where turns are taken.
#[derive(Clone)]
pub(super) struct Turns {
    core: Core,
    lanes: PgPool,
    asks: mpsc::Sender<Ask>,
    jobs: [mpsc::Sender<Job>; WRITERS],
}

impl Turns {
    pub(super) fn start(core: &Core, lanes: PgPool, tasks: &Tasks) -> Self {
        let (asks, asked) = mpsc::channel(WAITING);
        let reader = (core.clone(), lanes.clone());
        let reading = serve(asked, tasks.stop().clone(), async move |batch| show(&reader.0, &reader.1, batch).await);
        tasks.spawn("turns that begin", OnError::Log, reading);
        let jobs = std::array::from_fn(|_| {
            let (jobs, handed_in) = mpsc::channel(WAITING);
            let (core, lanes) = (core.clone(), lanes.clone());
            let writing = serve(handed_in, tasks.stop().clone(), async move |batch| write(&core, &lanes, batch).await);
            tasks.spawn("turns that end", OnError::Log, writing);
            jobs
        });
        Self { core: core.clone(), lanes, asks, jobs }
    }

    pub(super) const fn core(&self) -> &Core {
        &self.core
    }

    /// Disconnects, when nothing is under way any more.
    pub(super) async fn close(&self) {
        self.lanes.close().await;
    }

    /// Begins a turn.
    pub(super) async fn take(&self, fences: &[Fence], run: &RunId, phase: Option<&PhaseId>) -> StoreResult<PostgresTx> {
        self.core.may_go_on()?;
        let (answer, told) = oneshot::channel();
        let scopes = fences.iter().map(|fence| fence.scope.to_string()).collect();
        let ask = Ask { scopes, run: run.clone(), phase: phase.cloned(), answer };
        self.asks.send_timeout(ask, TURN).await.map_err(|error| refused(&error))?;
        let shown = timeout(ANSWER, told).await.map_err(|_| busy())?.map_err(|_| closed())??;
        for (fence, current) in fences.iter().zip(&shown.epochs) {
            if *current != Some(fence.epoch) {
                metrics().fenced("store");
                let scope = fence.scope.to_string();
                return Err(StoreError::Fenced { scope, held: fence.epoch, current: *current });
            }
        }
        let page = page(&shown.row)?;
        Ok(PostgresTx::showing(Sheet::new(self, fences, (run, phase)), page, shown.now, shown.place))
    }

    /// Has written what a turn writes, together with others.
    pub(super) async fn hand_in(
        &self,
        fences: Vec<Fence>,
        run: RunId,
        head: Head,
        puts: Vec<Put>,
        records: Vec<AuditRecord>,
        at: Timestamp,
    ) -> StoreResult<Done> {
        let (answer, told) = oneshot::channel();
        let mut hasher = DefaultHasher::new();
        run.as_str().hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % WRITERS as u64).unwrap_or(0);
        let job = Job { fences, run, head, puts, records, at, answer };
        self.jobs[lane].send_timeout(job, TURN).await.map_err(|error| refused(&error))?;
        let silent = || unknown(&sqlx::Error::WorkerCrashed);
        timeout(ANSWER, told).await.map_err(|_| silent())?.map_err(|_| silent())?
    }
}

fn closed() -> StoreError {
    away("the store is closed".to_owned(), "start the command or the supervisor again")
}

/// Why nothing more is let in.
fn refused<T>(error: &SendTimeoutError<T>) -> StoreError {
    match error {
        SendTimeoutError::Timeout(_) => busy(),
        SendTimeoutError::Closed(_) => closed(),
    }
}

fn busy() -> StoreError {
    away("too many transactions wait".to_owned(), "the database server is overloaded or away: try again")
}

/// Lets one batch through after the other until it is stopped; one that is under way then comes to its end.
async fn serve<T>(
    mut queue: mpsc::Receiver<T>,
    stop: CancellationToken,
    work: impl AsyncFn(Vec<T>),
) -> Result<(), StoreError> {
    // Whoever was in the batch is told that it is not known; those that come do not suffer for it.
    while let Err(panic) = caught(Box::pin(batches(&mut queue, &stop, &work))).await {
        tracing::error!(error = panic, "turns begin anew");
    }
    Ok(())
}

async fn batches<T>(queue: &mut mpsc::Receiver<T>, stop: &CancellationToken, work: &impl AsyncFn(Vec<T>)) {
    loop {
        let mut batch = Vec::new();
        if stop.run_until_cancelled(queue.recv_many(&mut batch, MOST)).await.is_none_or(|many| many == 0) {
            return;
        }
        work(batch).await;
    }
}

/// Reads what a batch of turns begins with.
async fn show(core: &Core, lanes: &PgPool, batch: Vec<Ask>) {
    let scopes: Vec<String> =
        batch.iter().flat_map(|ask| ask.scopes.iter().cloned()).collect::<BTreeSet<_>>().into_iter().collect();
    let runs: Vec<&str> = batch.iter().map(|ask| ask.run.as_str()).collect();
    let phases: Vec<Option<&str>> = batch.iter().map(|ask| ask.phase.as_ref().map(PhaseId::as_str)).collect();
    let sql = "SELECT run_doc, run_state, run_version, phase_doc, phase_state, phase_version, last, head_seq, head_hash, \
               now, cluster, incarnation, epochs FROM autopack.show_all($1, $2, $3, $4) ORDER BY place";
    let ask = || query(sql).bind(&runs).bind(&phases).bind(&scopes).bind(core.seen());
    let mut rows = within(SILENCE, ask().fetch_all(lanes)).await;
    for _ in 0..LANES {
        if !rows.as_ref().is_err_and(is_gone) {
            break;
        }
        // As after a restart of the server: asked again on another connection, until they have all been new.
        rows = within(SILENCE, ask().fetch_all(lanes)).await;
    }
    let rows = rows.map_err(|error| failed(&error, None));
    let read = rows.and_then(|mut rows| {
        if rows.len() != batch.len() + 1 {
            return Err(StoreError::Corrupt("the cluster row is missing".to_owned()));
        }
        let first = rows.remove(0);
        let now: i64 = first.try_get(9).map_err(|e| failed(&e, None))?;
        let incarnation = u32::try_from(natural(&first, 11)?);
        let incarnation = incarnation.map_err(|_| StoreError::Corrupt("the incarnation is out of range".to_owned()))?;
        let epochs: Option<Vec<Option<i64>>> = first.try_get(12).map_err(|e| failed(&e, None))?;
        let epochs = epochs.unwrap_or_default().into_iter().map(|epoch| epoch.and_then(|e| u64::try_from(e).ok()));
        let epochs: BTreeMap<String, Option<u64>> = scopes.into_iter().zip(epochs).collect();
        Ok((core.saw(now), (text(&first, 10)?.to_owned(), incarnation), epochs, rows))
    });
    match read {
        Ok((now, place, epochs, rows)) => {
            for (ask, row) in batch.into_iter().zip(rows) {
                let epochs = ask.scopes.iter().map(|scope| epochs.get(scope).copied().flatten()).collect();
                let _gone = ask.answer.send(Ok(Shown { row, now, place: place.clone(), epochs }));
            }
        }
        Err(error) => {
            for ask in batch {
                let _gone = ask.answer.send(Err(again(&error)));
            }
        }
    }
}

/// The same error for each of many.
fn again(error: &StoreError) -> StoreError {
    if let StoreError::Unavailable { why, hint } = error {
        return away(why.clone(), hint);
    }
    StoreError::Corrupt(error.to_string())
}

/// What a row shows.
fn page(row: &PgRow) -> StoreResult<Page> {
    let found = Gathered { run: read_living_at(row, 0)?, phase: read_living_at(row, 3)? };
    let last = maybe_text(row, 6)?.map(|text| doc::unpack(text, [])).transpose()?;
    let head = match maybe_integer(row, 7)? {
        Some(_) => (natural(row, 7)?, digest(row, 8)?),
        None => NOTHING,
    };
    Ok(Page { found, last, head })
}

/// Writes what a batch of turns writes.
async fn write(core: &Core, lanes: &PgPool, mut batch: Vec<Job>) {
    // Of two of one run the second was shown what the first changes.
    batch.sort_by(|one, other| one.run.cmp(&other.run));
    let mut jobs: Vec<Job> = Vec::with_capacity(batch.len());
    for job in batch {
        if jobs.last().is_some_and(|last| last.run == job.run) { job.alone() } else { jobs.push(job) }
    }
    match within(SILENCE, bound(&jobs).fetch_all(lanes)).await {
        // Read to its end, that is, after the commit.
        Ok(rows) => {
            core.commits.announce();
            let moved: Vec<String> = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default();
            let moved: BTreeSet<String> = moved.into_iter().collect();
            for job in jobs {
                if moved.contains(job.run.as_str()) { job.tell(Ok(Done::Together)) } else { job.alone() }
            }
        }
        Err(error) if is_refusal(&error) => {
            tracing::debug!(%error, turns = jobs.len(), "a batch was refused: each goes by itself");
            jobs.into_iter().for_each(Job::alone);
        }
        Err(error @ (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)) => {
            jobs.into_iter().for_each(|job| job.tell(Err(failed(&error, None))));
        }
        Err(error) => jobs.into_iter().for_each(|job| job.tell(Err(unknown(&error)))),
    }
}

/// Whether the server has said that nothing was written. Where it went away nobody knows.
fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| !code.starts_with("57P") && !code.starts_with("08"))
}

/// The statement that writes a batch.
fn bound(jobs: &[Job]) -> Sql<'_> {
    let fences: BTreeSet<(String, i64)> =
        jobs.iter().flat_map(|job| &job.fences).map(|f| (f.scope.to_string(), integer(f.epoch))).collect();
    let (scopes, epochs): (Vec<String>, Vec<i64>) = fences.into_iter().unzip();
    let puts: Vec<&Put> = jobs.iter().flat_map(|job| &job.puts).collect();
    let records: Vec<&AuditRecord> = jobs.iter().flat_map(|job| &job.records).collect();
    let sql = "SELECT autopack.move_all($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
               $19, $20)";
    let sql = query(sql).bind(scopes).bind(epochs);
    let sql = sql.bind(jobs.iter().map(|job| job.run.as_str()).collect::<Vec<_>>());
    let sql = sql.bind(jobs.iter().map(|job| integer(job.head.0)).collect::<Vec<_>>());
    let sql = sql.bind(jobs.iter().map(|job| &job.head.1.as_bytes()[..]).collect::<Vec<_>>());
    let sql = puts::bind(sql, &puts);
    let sql = sql.bind(records.iter().map(|r| r.chain.as_str()).collect::<Vec<_>>());
    let sql = sql.bind(records.iter().map(|r| integer(r.seq)).collect::<Vec<_>>());
    let sql = sql.bind(records.iter().map(|r| r.body.as_str()).collect::<Vec<_>>());
    let sql = sql.bind(records.iter().map(|r| &r.prev_hash.as_bytes()[..]).collect::<Vec<_>>());
    let sql = sql.bind(records.iter().map(|r| &r.hash.as_bytes()[..]).collect::<Vec<_>>());
    let sql = sql.bind(records.iter().map(|r| r.at.as_millis()).collect::<Vec<_>>());
    sql.bind(jobs.iter().map(|job| job.at.as_millis()).max().unwrap_or(0))
}

impl Job {
    fn tell(self, done: StoreResult<Done>) {
        // Who no longer waits finds what there is when it looks again.
        let _gone = self.answer.send(done);
    }

    fn alone(self) {
        let _gone = self.answer.send(Ok(Done::Alone(self.puts)));
    }
}
