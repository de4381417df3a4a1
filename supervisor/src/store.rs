//! The control store: every run, phase, lease, decision, request and audit record. [`Store::tx`] is the only way to
//! write run state; it checks the writer's fences first and holds them until commit (`coordination.md` 3.4).

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::watch;

use autopack_shared::domain::audit::{AuditDraft, AuditRecord};
use autopack_shared::domain::ids::{Digest, Fence, PhaseId, ProjectId, RequestId, RowId, RunId, Scope, Timestamp};
use autopack_shared::domain::record::{
    Apply, Attempt, Command, Decision, Event, Lease, Notice, Phase, Project, Request, Run, Tally, Vote, WindowSums,
};
use autopack_shared::domain::state::{PhaseState, RequestState, RunState};

pub use self::batches::Batches;
pub use self::budgets::{Governors, Spending, SpentBy};
use self::facts::Facts;
pub use self::gates::Gates;
pub use self::surveys::Surveys;
pub use self::transcripts::Transcripts;

pub mod batches;
pub mod budgets;
mod doc;
pub mod facts;
pub mod gates;
pub mod postgres;
pub mod sqlite;
mod state_tables;
mod subject;
pub mod surveys;
pub mod transcripts;
pub mod verify;

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such row.
    #[error("no {what} {id}")]
    NotFound {
        /// Which noun.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// The name is taken.
    #[error("{what} {id} exists already")]
    Exists {
        /// Which noun.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// The row changed since it was read.
    #[error("{what} {id} changed since it was read (version {expected} is gone)")]
    Conflict {
        /// Which noun.
        what: &'static str,
        /// Which one.
        id: String,
        /// The version the writer had read.
        expected: u64,
    },
    /// The writer's epoch is not the current one.
    #[error("fenced: {scope} is at epoch {current:?}, this writer holds {held}")]
    Fenced {
        /// Which scope.
        scope: String,
        /// The writer's epoch.
        held: u64,
        /// The current epoch, if the scope has one.
        current: Option<u64>,
    },
    /// A move that the tables do not list, stopped by the database.
    #[error("the store refused an illegal move: {0}")]
    IllegalMove(String),
    /// The disk that holds the store is full.
    #[error("the disk of the control store is full ({0})")]
    Full(String),
    /// The store cannot be used now: busy, away.
    #[error("the control store is unavailable ({why}): {hint}")]
    Unavailable {
        /// What happened.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A row breaks a rule, or the file fails its integrity check.
    #[error("the control store is corrupt: {0}")]
    Corrupt(String),
    /// The database server, or this connection to it, may lose what it has acknowledged.
    #[error("the server of the control store is not safe to use: {0}")]
    Unsafe(String),
    /// The store is not on the database system it was made on.
    #[error(
        "the control store was made on database system {made_on} and is now on {found}: it was restored from a copy \
         or moved, and may lack what was acknowledged since"
    )]
    Moved {
        /// The identifier of the system it was made on.
        made_on: String,
        /// The one it is on now.
        found: String,
    },
    /// A hub has seen more of this store than the store knows.
    #[error(
        "the hub of {project} was last written under {hub}, and the control store is at {store}: it was restored to an \
         older state, or another cluster writes this hub"
    )]
    Restored {
        /// Whose hub.
        project: String,
        /// The token there.
        hub: String,
        /// The token here.
        store: String,
    },
    /// The store was restored to an older state while this process was at work with it.
    #[error("the control store is at incarnation {found} and was at {ours}: it was restored to an older state")]
    Rewound {
        /// Its incarnation now.
        found: u32,
        /// The one that this process has met.
        ours: u32,
    },
    /// The store's supervisors meet elsewhere: with these, there would be two directors at once.
    #[error("the supervisors of this control store meet under the name {known}, these under {asked}")]
    Elsewhere {
        /// Theirs.
        known: String,
        /// Ours.
        asked: String,
    },
    /// The store's schema is newer than this program.
    #[error("the control store has schema {found}, this program knows {known}: use a newer autopack")]
    Schema {
        /// What the store has.
        found: i64,
        /// What this program knows.
        known: i64,
    },
}

/// A store's answer.
pub type StoreResult<T> = Result<T, StoreError>;

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only this project.
    pub project: Option<ProjectId>,
    /// Only these states; empty means all.
    pub states: Vec<RunState>,
    /// At most so many, newest first; 0 means all.
    pub limit: u32,
}

/// Which requests to list.
#[derive(Debug, Clone, Default)]
pub struct RequestFilter {
    /// Only this run.
    pub run: Option<RunId>,
    /// Only this phase.
    pub phase: Option<PhaseId>,
    /// Only these states; empty means all.
    pub states: Vec<RequestState>,
    /// At most so many, newest first; 0 means all.
    pub limit: u32,
}

/// A control store.
#[async_trait]
pub trait Store: Send + Sync {
    /// A consistent view; its writing verbs fail.
    async fn read(&self) -> StoreResult<Box<dyn Tx>>;
    /// A write transaction. Checks every fence, in scope order, before anything else; none may change until the
    /// transaction ends. Run state needs its run's or the director's fence; requests, votes, commands and projects
    /// need none.
    async fn tx(&self, fences: &[Fence]) -> StoreResult<Box<dyn Tx>>;
    /// A write transaction about one run, in which writes may wait ([`Batches::defer`]). Where that is less work, nothing
    /// is held until the commit: it is shown the run and the phase, and what it writes is committed together with what
    /// others write at the same time. Its fences are checked before and again in the commit; where somebody has written
    /// to the run in between, it is refused with `Conflict`, and is to be begun again. Each has its own answer.
    async fn turn(&self, fences: &[Fence], run: &RunId, phase: Option<&PhaseId>) -> StoreResult<Box<dyn Tx>>;
    /// The store's clock: never goes back, survives restarts.
    async fn now(&self) -> StoreResult<Timestamp>;
    /// Whether this program may still use the store: one of another version may have changed the schema meanwhile.
    async fn fits(&self) -> StoreResult<()> {
        Ok(())
    }
    /// Rises with every commit of this process, and soon after those of others that share the store.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Flushes and closes.
    async fn close(&self);
}

/// One transaction. Dropped without [`Tx::commit`], it leaves nothing behind.
#[async_trait]
pub trait Tx:
    Fences
    + Runs
    + Phases
    + Requests
    + Applies
    + Journal
    + Surveys
    + Batches
    + Gates
    + Spending
    + Governors
    + Transcripts
    + Send
{
    /// The store's clock in this transaction.
    fn now(&self) -> Timestamp;
    /// Makes it durable.
    async fn commit(self: Box<Self>) -> StoreResult<()>;
}

/// Epochs and the incarnation.
#[async_trait]
pub trait Fences {
    /// The store's incarnation.
    async fn incarnation(&mut self) -> StoreResult<u32>;
    /// Sets it; it may only rise.
    async fn set_incarnation(&mut self, incarnation: u32) -> StoreResult<()>;
    /// The stable random id of this store.
    async fn cluster_id(&mut self) -> StoreResult<String>;
    /// The name under which those who use this store coordinate; none before anybody said one.
    async fn coordination(&mut self) -> StoreResult<Option<String>>;
    /// Says it anew, if it is still what was read; whether it was.
    async fn set_coordination(&mut self, from: Option<&str>, to: &str) -> StoreResult<bool>;
    /// The current epoch of a scope.
    async fn epoch(&mut self, scope: &Scope) -> StoreResult<Option<u64>>;
    /// Raises a scope's epoch by one (1 if it has none) and names its holder; from then on this transaction also
    /// holds that fence.
    async fn bump(&mut self, scope: &Scope, holder: &str) -> StoreResult<u64>;
}

/// Projects, runs, leases.
#[async_trait]
pub trait Runs {
    /// Adds or replaces a project.
    async fn put_project(&mut self, project: &Project) -> StoreResult<()>;
    /// One project.
    async fn project(&mut self, id: &ProjectId) -> StoreResult<Option<Project>>;
    /// All projects, by name.
    async fn projects(&mut self) -> StoreResult<Vec<Project>>;
    /// Adds a run and its fence with epoch 1; allowed without a fence.
    async fn insert_run(&mut self, run: &Run) -> StoreResult<()>;
    /// One run.
    async fn run(&mut self, id: &RunId) -> StoreResult<Option<Run>>;
    /// Runs, newest first.
    async fn runs(&mut self, filter: &RunFilter) -> StoreResult<Vec<Run>>;
    /// Writes a run that was read at `run.version`; the stored version rises by one, and so does `run.version`.
    async fn update_run(&mut self, run: &mut Run) -> StoreResult<()>;
    /// Holds the gate of a project until the transaction ends: whoever counts active leases in order to add one does it
    /// under the gate, so that no two of them count the same ones.
    async fn lock_gate(&mut self, project: &ProjectId) -> StoreResult<()>;
    /// Adds a lease.
    async fn insert_lease(&mut self, lease: &Lease) -> StoreResult<()>;
    /// Leases GRANTING or HELD, oldest first; of one project or of all.
    async fn active_leases(&mut self, project: Option<&ProjectId>) -> StoreResult<Vec<Lease>>;
    /// All leases of a run, oldest first.
    async fn leases(&mut self, run: &RunId) -> StoreResult<Vec<Lease>>;
    /// Writes a lease by its version, as [`Runs::update_run`].
    async fn update_lease(&mut self, lease: &mut Lease) -> StoreResult<()>;
    /// The most leases of a project that were GRANTING or HELD at once, over its whole history; for proof.
    async fn peak_leases(&mut self, project: &ProjectId) -> StoreResult<u64>;
    /// How many runs, phases and active leases each project has in each state; for those who watch.
    async fn census(&mut self) -> StoreResult<Vec<Tally>>;
}

/// Phases and attempts.
#[async_trait]
pub trait Phases {
    /// Adds a phase; allowed without a fence in the transaction that adds its run.
    async fn insert_phase(&mut self, phase: &Phase) -> StoreResult<()>;
    /// One phase.
    async fn phase(&mut self, run: &RunId, id: &PhaseId) -> StoreResult<Option<Phase>>;
    /// A run's phases in order.
    async fn phases(&mut self, run: &RunId) -> StoreResult<Vec<Phase>>;
    /// Runs that have a phase in this state, whatever state they are in themselves.
    async fn runs_with_phase(&mut self, state: PhaseState) -> StoreResult<Vec<RunId>>;
    /// Writes a phase by its version.
    async fn update_phase(&mut self, phase: &mut Phase) -> StoreResult<()>;
    /// Adds an attempt.
    async fn insert_attempt(&mut self, attempt: &Attempt) -> StoreResult<()>;
    /// One attempt.
    async fn attempt(&mut self, run: &RunId, phase: &PhaseId, number: u32) -> StoreResult<Option<Attempt>>;
    /// A phase's attempts, oldest first.
    async fn attempts(&mut self, run: &RunId, phase: &PhaseId) -> StoreResult<Vec<Attempt>>;
    /// Writes an attempt by its version.
    async fn update_attempt(&mut self, attempt: &mut Attempt) -> StoreResult<()>;
}

/// Decisions, requests, votes, commands. None needs a fence: each write is a compare-and-set on its own row.
#[async_trait]
pub trait Requests {
    /// Adds a decision.
    async fn insert_decision(&mut self, decision: &Decision) -> StoreResult<()>;
    /// One decision.
    async fn decision(&mut self, id: &RowId) -> StoreResult<Option<Decision>>;
    /// A run's decisions, oldest first.
    async fn decisions(&mut self, run: &RunId) -> StoreResult<Vec<Decision>>;
    /// Adds a request. A second PENDING one for the same subject is refused with `Exists`.
    async fn insert_request(&mut self, request: &Request) -> StoreResult<()>;
    /// One request.
    async fn request(&mut self, id: &RequestId) -> StoreResult<Option<Request>>;
    /// Requests, newest first.
    async fn requests(&mut self, filter: &RequestFilter) -> StoreResult<Vec<Request>>;
    /// Writes a request by its version.
    async fn update_request(&mut self, request: &mut Request) -> StoreResult<()>;
    /// The earliest end of a PENDING or APPROVED request.
    async fn next_expiry(&mut self) -> StoreResult<Option<Timestamp>>;
    /// Adds a vote; a second one of the same principal is refused with `Exists`.
    async fn insert_vote(&mut self, vote: &Vote) -> StoreResult<()>;
    /// A request's votes, oldest first.
    async fn votes(&mut self, request: &RequestId) -> StoreResult<Vec<Vote>>;
    /// Adds a command.
    async fn insert_command(&mut self, command: &Command) -> StoreResult<()>;
    /// One command, done or not.
    async fn command(&mut self, id: &RowId) -> StoreResult<Option<Command>>;
    /// Commands not yet done, oldest first; of one run or of all.
    async fn open_commands(&mut self, run: Option<&RunId>) -> StoreResult<Vec<Command>>;
    /// Marks a command done.
    async fn finish_command(&mut self, id: &RowId, at: Timestamp, result: &str) -> StoreResult<()>;
}

/// Moves of branches, and the size windows they fill.
#[async_trait]
pub trait Applies {
    /// Adds an apply. Only one may be PREPARED for a ref at a time (`Exists` otherwise).
    async fn insert_apply(&mut self, apply: &Apply) -> StoreResult<()>;
    /// One apply.
    async fn apply(&mut self, id: &RowId) -> StoreResult<Option<Apply>>;
    /// A run's applies, oldest first.
    async fn applies(&mut self, run: &RunId) -> StoreResult<Vec<Apply>>;
    /// Every PREPARED apply, oldest first.
    async fn prepared_applies(&mut self) -> StoreResult<Vec<Apply>>;
    /// Writes an apply by its version.
    async fn update_apply(&mut self, apply: &mut Apply) -> StoreResult<()>;
    /// Adds the lines of a prepared change to the windows, by path class.
    async fn add_window(&mut self, run: &Run, apply: &RowId, sizes: &BTreeMap<String, u64>) -> StoreResult<()>;
    /// What has been applied by this run, and by its project since `since`.
    async fn window(&mut self, run: &Run, since: Timestamp) -> StoreResult<WindowSums>;
}

/// Events, notices, idempotent answers, the audit log.
#[async_trait]
pub trait Journal {
    /// Appends an event to a run's history and returns its number; its place is set here, by [`Event::follow`].
    async fn append_event(&mut self, event: &mut Event) -> StoreResult<u64>;
    /// Events of a run after `after`, in order, at most `limit`.
    async fn events(&mut self, run: &RunId, after: u64, limit: u32) -> StoreResult<Vec<Event>>;
    /// Events of a run before `before`, the newest first, at most `limit`.
    async fn events_back(&mut self, run: &RunId, before: u64, limit: u32) -> StoreResult<Vec<Event>>;
    /// Queues a notice.
    async fn insert_notice(&mut self, notice: &Notice) -> StoreResult<()>;
    /// Notices not yet sent, oldest first.
    async fn unsent_notices(&mut self, limit: u32) -> StoreResult<Vec<Notice>>;
    /// Marks a notice sent. False where somebody has before: then nothing changes.
    async fn mark_sent(&mut self, id: &RowId, at: Timestamp) -> StoreResult<bool>;
    /// The stored answer of an idempotent call, with the digest of the call it answered.
    async fn idem(&mut self, key: &str, principal: &str, method: &str) -> StoreResult<Option<(Digest, Vec<u8>)>>;
    /// Stores such an answer.
    async fn put_idem(
        &mut self,
        key: &str,
        principal: &str,
        method: &str,
        call: Digest,
        answer: &[u8],
    ) -> StoreResult<()>;
    /// Appends to a chain of the audit log, in this transaction. Its place there is settled when the transaction
    /// commits, or reads the log before.
    async fn append_audit(&mut self, draft: AuditDraft) -> StoreResult<()>;
    /// Records of a chain from `from_seq`, in order.
    async fn audit(&mut self, chain: &str, from_seq: u64, limit: u32) -> StoreResult<Vec<AuditRecord>>;
    /// Every chain with its head: name, last seq, last hash.
    async fn audit_heads(&mut self) -> StoreResult<Vec<(String, u64, Digest)>>;
    /// Rows whose keys, as they are searched by, differ from what the rows themselves say; each as `noun id`. None,
    /// unless somebody edited them past this port.
    async fn skewed_rows(&mut self) -> StoreResult<Vec<String>>;
    /// The rows that no other verb reads whole, for `audit verify`.
    async fn facts(&mut self) -> StoreResult<Facts>;
}
