//! A transaction about one run before it is one: it was shown the run, locks nothing, and keeps what is written to it.
//! Where that is all, it is committed together with others (`turns.rs`). Anything else that is asked of it makes it a
//! transaction of its own, which first sees that nobody has written to the run since it was shown.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;
use sqlx::{Postgres, Transaction};

use autopack_shared::domain::ids::{Fence, PhaseId, RunId, Scope, Timestamp};

use super::audit::Head;
use super::base::Core;
use super::error::{failed, within};
use super::puts::Put;
use super::turns::{Done, Page, Turns};
use super::tx::{PostgresTx, Sql};
use crate::store::batches::{Batches as _, Gathered};
use crate::store::{StoreError, StoreResult, Tx as _};

/// What a transaction about one run was shown.
pub(super) struct Sheet {
    turns: Turns,
    fences: Vec<Fence>,
    run: RunId,
    phase: Option<PhaseId>,
    found: Gathered,
    /// The number of the last line of its history.
    last: Option<u64>,
    head: Head,
}

impl Sheet {
    pub(super) fn new(turns: &Turns, fences: &[Fence], (run, phase): (&RunId, Option<&PhaseId>)) -> Self {
        let (found, head) = (Gathered { run: None, phase: None }, super::audit::NOTHING);
        let mut fences = fences.to_vec();
        fences.sort();
        fences.dedup();
        Self { turns: turns.clone(), fences, run: run.clone(), phase: phase.cloned(), found, last: None, head }
    }

    const fn core(&self) -> &Core {
        self.turns.core()
    }

    /// Whether one of its fences is one that writes to its run need.
    fn is_fenced(&self) -> bool {
        let mine = |fence: &Fence| match &fence.scope {
            Scope::Run(run) => *run == self.run,
            other => *other == Scope::Director,
        };
        self.fences.iter().any(mine)
    }

    fn chain(&self) -> String {
        format!("run/{}", self.run)
    }
}

/// Whether writes can go with those of others: all to rows of this run that are there once, in any order.
fn are_plain(puts: &[Put], run: &RunId) -> bool {
    let mut rows = BTreeSet::new();
    puts.iter().all(|put| put.run() == run && put.is_of_a_run() && rows.insert(put.row()))
}

impl PostgresTx {
    /// A sheet with what it was shown.
    pub(super) fn showing(mut sheet: Sheet, page: Page, now: Timestamp, place: (String, u32)) -> Self {
        let mut tx = Self::new(None, Some(sheet.core().commits.clone())).at(now);
        (tx.place, tx.deferring) = (place, true);
        sheet.last = page.last.as_ref().map(|line| line.seq);
        if page.found.run.is_some() {
            tx.held.insert(sheet.run.clone(), page.last);
            tx.heads.insert(sheet.chain(), page.head);
        }
        (sheet.found, sheet.head) = (page.found, page.head);
        tx.sheet = Some(Box::new(sheet));
        tx
    }

    /// Makes a sheet a transaction: its fences held, its run held, and nothing of what it was shown has changed.
    pub(super) async fn open(&mut self) -> StoreResult<Transaction<'static, Postgres>> {
        let gone = || StoreError::Corrupt("a transaction without a connection".to_owned());
        let sheet = self.sheet.take().ok_or_else(gone)?;
        // What fails here leaves nothing to go on with.
        self.broken = true;
        let mut tx = sheet.core().write(&sheet.fences.iter().collect()).await?;
        if let Some(run) = &sheet.found.run {
            let found = tx.gather(&[(sheet.run.clone(), sheet.phase.clone())]).await?.pop();
            let head = tx.heads.get(&sheet.chain()).copied();
            let last = tx.held.get(&sheet.run).and_then(|last| last.as_ref().map(|line| line.seq));
            if found.as_ref() != Some(&sheet.found) || (head, last) != (Some(sheet.head), sheet.last) {
                return Err(StoreError::Conflict { what: "run", id: sheet.run.to_string(), expected: run.version });
            }
        }
        self.broken = false;
        tx.begun().ok_or_else(gone)
    }

    /// What a sheet was shown, where that is what is asked for and nothing was written since.
    pub(super) fn shown(&self, wanted: &[(RunId, Option<PhaseId>)]) -> Option<Gathered> {
        let sheet = self.sheet.as_ref().filter(|_| self.puts.is_empty())?;
        let [(run, phase)] = wanted else { return None };
        if *run != sheet.run || (phase.is_some() && *phase != sheet.phase) {
            return None;
        }
        let phase = phase.as_ref().and(sheet.found.phase.clone());
        Some(Gathered { run: sheet.found.run.clone(), phase })
    }

    /// All rows of a question that locks nothing, to tables that are named. A sheet stays one, unless it has written to
    /// one of them.
    pub(super) async fn look(&mut self, tables: &[&str], sql: Sql<'_>) -> StoreResult<Vec<PgRow>> {
        self.usable()?;
        match &self.sheet {
            Some(sheet) if !self.puts.iter().any(|put| tables.contains(&put.table())) => {
                let rows = within(super::SILENCE, sql.fetch_all(&sheet.core().pool)).await;
                rows.map_err(|error| failed(&error, None))
            }
            Some(_) | None => self.all(sql).await,
        }
    }

    /// Commits a sheet together with others; false where it has to be done by itself.
    pub(super) async fn commit_with_others(&mut self) -> StoreResult<bool> {
        let Some(sheet) = &self.sheet else { return Ok(false) };
        let chain = sheet.chain();
        let plain = !self.leases && sheet.is_fenced() && are_plain(&self.puts, &sheet.run);
        if !plain || sheet.found.run.is_none() || self.drafts.iter().any(|draft| draft.chain != chain) {
            return Ok(false);
        }
        let (turns, fences) = (sheet.turns.clone(), sheet.fences.clone());
        let (run, head, at) = (sheet.run.clone(), sheet.head, self.now());
        let records = self.sealed(&self.drafts).into_records();
        let puts = std::mem::take(&mut self.puts);
        match turns.hand_in(fences, run, head, puts, records, at).await? {
            Done::Together => Ok(true),
            Done::Alone(puts) => {
                self.puts = puts;
                Ok(false)
            }
        }
    }
}
