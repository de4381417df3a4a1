//! `audit verify` over a store: every chain recomputed, the whole log gap-free, and the rows equal to what the log says
//! became of them (`audit.md` 6.3). It reads through the port, so every engine has it; one chain is replayed and
//! compared at a time, so that memory goes by the longest run; only the small rows of `facts` are read at once.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use autopack_shared::domain::audit::{AuditBreak, AuditEntry, ChainCheck, row_digest};
use autopack_shared::domain::ids::Digest;

use super::facts::{FenceRow, LeaseChange};
use super::{RunFilter, Store, StoreError, StoreResult, Tx};

mod replay;
mod rows;

use replay::Replay;
use rows::Side;

/// Records read at once.
const PAGE: u32 = 1000;

/// What a verification found.
#[derive(Debug, Clone, Default)]
pub struct AuditReport {
    /// Records that were checked.
    pub records: u64,
    /// Chains that were checked.
    pub chains: u64,
    /// What is wrong: at most one break a chain, then the log as a whole, then rows.
    pub breaks: Vec<AuditBreak>,
}

impl AuditReport {
    /// The exit code of `autopack audit verify`: 0, or the gravest of the breaks', which is the lowest.
    #[must_use]
    pub fn exit_code(&self) -> u32 {
        self.breaks.iter().map(|b| u32::from(b.exit_code())).min().unwrap_or(0)
    }

    /// What is wrong, a line each, for people.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.breaks.iter().map(ToString::to_string).collect()
    }
}

/// Verifies a store's audit log.
///
/// # Errors
/// When the store cannot be read at all. What is wrong with the log is in the report.
pub async fn verify(store: &dyn Store) -> StoreResult<AuditReport> {
    let mut view = store.read().await?;
    let mut log = Log { cluster: view.cluster_id().await?, ..Log::default() };
    let found = log.side_rows(view.as_mut()).await;
    log.take(found)?;
    for (chain, seq, hash) in view.audit_heads().await? {
        log.report.chains += 1;
        let side = log.sides.remove(&chain).unwrap_or_default();
        let Some(replay) = log.check_chain(view.as_mut(), &chain, (seq, hash)).await? else { continue };
        log.lease_moves.extend(replay.leases.iter().cloned());
        let found = rows::check(view.as_mut(), &chain, side, replay).await;
        log.take(found)?;
    }
    log.check_positions();
    let found = log.unlogged(view.as_mut()).await;
    log.take(found)?;
    let found = log.leases(view.as_mut()).await;
    log.take(found)?;
    let found = skewed(view.as_mut()).await;
    log.take(found)?;
    Ok(log.report)
}

/// The log as far as it has been read.
#[derive(Default)]
struct Log {
    report: AuditReport,
    /// Where each record stands in the whole log.
    positions: Vec<u64>,
    /// Every chain that has a head.
    chains: BTreeSet<String>,
    /// Whether a chain is broken: then rows are not compared with it, and holes need no second report.
    broken: bool,
    /// How many records the store says there are, and how many of them with a position.
    leaves: Option<(u64, u64)>,
    /// The store's id.
    cluster: String,
    /// That the log is another store's.
    foreign: Option<AuditBreak>,
    /// Position and incarnation of the newest record.
    newest: (u64, Option<u32>),
    /// Rows that are read at once, by the chain that tells of them.
    sides: BTreeMap<String, Side>,
    /// Starts and ends of active leases, as the store has them and as the log does.
    lease_changes: Vec<LeaseChange>,
    lease_moves: Vec<(u64, String, bool)>,
}

impl Log {
    /// Checks one chain; what it says of the rows, unless it is broken.
    async fn check_chain(
        &mut self,
        view: &mut dyn Tx,
        chain: &str,
        head: (u64, Digest),
    ) -> StoreResult<Option<Replay>> {
        self.chains.insert(chain.to_owned());
        let mut check = ChainCheck::new(chain);
        let mut replay = Replay::default();
        let mut from = 1;
        loop {
            let page = view.audit(chain, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.seq.saturating_add(1);
            for record in &page {
                self.positions.extend(record.position());
                self.report.records += 1;
                match check.push(record) {
                    Ok(entry) => {
                        self.place(&entry, record.leaf_index);
                        replay.learn(entry, record.leaf_index)?;
                    }
                    Err(found) => return Ok(self.broke(found)),
                }
            }
        }
        match check.finish(head) {
            Ok(()) => Ok(Some(replay)),
            Err(found) => Ok(self.broke(found)),
        }
    }

    fn broke(&mut self, found: AuditBreak) -> Option<Replay> {
        self.broken = true;
        self.report.breaks.push(found);
        None
    }

    /// Whose log it is, by its newest record.
    fn place(&mut self, entry: &AuditEntry, leaf: u64) {
        if entry.cluster != self.cluster {
            let why = format!("the log has records of {}", entry.cluster);
            self.foreign.get_or_insert(semantic(format!("cluster {}", self.cluster), &why));
        }
        if self.newest.1.is_none() || leaf > self.newest.0 {
            self.newest = (leaf, Some(entry.incarnation));
        }
    }

    /// Reads the rows that are read at once.
    async fn side_rows(&mut self, view: &mut dyn Tx) -> StoreResult<Vec<AuditBreak>> {
        for project in view.projects().await? {
            self.sides.entry(format!("project/{}", project.id)).or_default().projects.push(project);
        }
        let facts = view.facts().await?;
        for fence in facts.fences {
            self.sides.entry(FenceRow::chain(&fence.scope)).or_default().fences.push(fence);
        }
        for row in facts.windows {
            self.sides.entry(format!("run/{}", row.run)).or_default().windows.push(row);
        }
        for command in facts.commands {
            self.sides.entry(format!("run/{}", command.run)).or_default().commands.push(command);
        }
        for notice in facts.notices {
            self.sides.entry(format!("run/{}", notice.run)).or_default().notices.push(notice);
        }
        (self.leaves, self.lease_changes) = (Some((facts.leaves, facts.numbered)), facts.leases);
        Ok(Vec::new())
    }

    /// The history of leases, which the peak is proven from, has the starts and ends that the log has, in its order,
    /// each by a commit of its own, but for starts: several leases may be granted at once, and what is counted is what
    /// stands after a commit.
    async fn leases(&mut self, view: &mut dyn Tx) -> StoreResult<Vec<AuditBreak>> {
        if self.broken {
            return Ok(Vec::new());
        }
        let mut projects = BTreeMap::new();
        for run in view.runs(&RunFilter::default()).await? {
            for lease in view.leases(&run.id).await? {
                projects.insert(lease.id.to_string(), lease.project.to_string());
            }
        }
        self.lease_moves.sort_unstable();
        let logged = self.lease_moves.iter().map(|(_, lease, starts)| (lease, projects.get(lease), *starts));
        let rises = self.lease_changes.is_sorted_by(|one, next| {
            one.commit < next.commit || one.commit == next.commit && one.starts && next.starts
        });
        // Within a commit the order says nothing.
        let mut logged: Vec<_> = logged.collect();
        let mut stored = Vec::with_capacity(logged.len());
        for together in self.lease_changes.chunk_by(|one, next| one.commit == next.commit) {
            let from = stored.len();
            stored.extend(together.iter().map(|change| (&change.lease, Some(&change.project), change.starts)));
            stored[from..].sort_unstable();
            if let Some(same) = logged.get_mut(from..stored.len()) {
                same.sort_unstable();
            }
        }
        let same = rises && logged == stored;
        Ok(if same {
            Vec::new()
        } else {
            vec![semantic("lease history".to_owned(), "it is not the one that was logged")]
        })
    }

    /// A chain that is gone with its head leaves a hole in the numbering of the whole log, or an end before its end.
    fn check_positions(&mut self) {
        self.positions.sort_unstable();
        if self.broken {
            return;
        }
        let (found, numbered) = (self.report.records, self.positions.len() as u64);
        let (all, positions) = self.leaves.unwrap_or((found, numbered));
        let counts = [(found, all), (numbered, positions)];
        if let Some((found, expected)) = counts.into_iter().find(|(found, expected)| found != expected) {
            let chain = "(all)".to_owned();
            self.report.breaks.push(if expected > found {
                AuditBreak::MissingTail { chain, found, expected }
            } else {
                let why = format!("the store says that there are {expected} records only");
                AuditBreak::Chain { chain, seq: expected, why }
            });
        }
        let hole = self.positions.iter().zip(0..).find(|(position, expected)| *position != expected);
        if let Some((_, expected)) = hole {
            let why = format!("no chain has the record at position {expected} of the whole log");
            self.report.breaks.push(AuditBreak::Chain { chain: "(all)".to_owned(), seq: expected, why });
        }
    }

    /// Rows that no chain tells of, and a store that is not the one that was logged.
    async fn unlogged(&mut self, view: &mut dyn Tx) -> StoreResult<Vec<AuditBreak>> {
        let runs = view.runs(&RunFilter::default()).await?;
        let silent = runs.iter().filter(|run| !self.chains.contains(&format!("run/{}", run.id)));
        let mut found: Vec<_> =
            silent.map(|run| semantic(format!("run {}", run.id), "it has a row but no chain in the log")).collect();
        let side = |(chain, _)| semantic(chain, "it has rows but no chain in the log");
        found.extend(std::mem::take(&mut self.sides).into_iter().map(side));
        let (logged, stored) = (self.newest.1, view.incarnation().await?);
        if logged.is_some_and(|logged| logged != stored) {
            found.push(semantic(format!("cluster {}", self.cluster), "its incarnation is not the one that was logged"));
        }
        found.extend(self.foreign.take());
        Ok(found)
    }

    fn take(&mut self, found: StoreResult<Vec<AuditBreak>>) -> StoreResult<()> {
        match found {
            Ok(found) => self.report.breaks.extend(found),
            // A row that cannot be read is not what was audited.
            Err(StoreError::Corrupt(why)) => self.report.breaks.push(semantic("a row".to_owned(), &why)),
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

/// Rows that are searched by something else than what they say.
async fn skewed(view: &mut dyn Tx) -> StoreResult<Vec<AuditBreak>> {
    let rows = view.skewed_rows().await?;
    Ok(rows.into_iter().map(|row| semantic(row, "its columns and its document disagree")).collect())
}

fn semantic(object: String, why: &str) -> AuditBreak {
    AuditBreak::Semantic { object, why: why.to_owned() }
}

fn digest<T: Serialize>(row: &T) -> StoreResult<String> {
    row_digest(row).map_err(|e| StoreError::Corrupt(format!("a row that is no JSON: {e}")))
}
