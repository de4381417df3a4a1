//! `audit verify` over a store: every chain recomputed, the whole log gap-free, and the rows equal to what the log says
//! became of them (`audit.md` 6.3). It reads through the port, so every engine has it; one chain is replayed and
//! compared at a time, so that memory goes by the longest run and not by the store.

use std::collections::BTreeSet;

use autopack_shared::domain::audit::{AuditBreak, ChainCheck};
use autopack_shared::domain::ids::{Digest, RunId};

use super::{RunFilter, Store, StoreError, StoreResult, Tx};

mod replay;
mod rows;

use replay::Replay;

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
    let mut log = Log::default();
    for (chain, seq, hash) in view.audit_heads().await? {
        log.report.chains += 1;
        let Some(replay) = log.check_chain(view.as_mut(), &chain, (seq, hash)).await? else { continue };
        if let Some(run) = chain.strip_prefix("run/").and_then(|id| id.parse::<RunId>().ok()) {
            let found = rows::check(view.as_mut(), &run, replay).await;
            log.take(found)?;
        }
    }
    log.check_positions();
    let found = log.unlogged(view.as_mut()).await;
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
                self.positions.push(record.leaf_index);
                self.report.records += 1;
                match check.push(record) {
                    Ok(entry) => replay.learn(entry),
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

    /// A chain that is gone with its head leaves a hole in the numbering of the whole log.
    fn check_positions(&mut self) {
        self.positions.sort_unstable();
        let hole = self.positions.iter().zip(0..).find(|(position, expected)| *position != expected);
        if let (Some((_, expected)), false) = (hole, self.broken) {
            let why = format!("no chain has the record at position {expected} of the whole log");
            self.report.breaks.push(AuditBreak::Chain { chain: "(all)".to_owned(), seq: expected, why });
        }
    }

    /// Runs that no chain tells of.
    async fn unlogged(&self, view: &mut dyn Tx) -> StoreResult<Vec<AuditBreak>> {
        let runs = view.runs(&RunFilter::default()).await?;
        let silent = runs.iter().filter(|run| !self.chains.contains(&format!("run/{}", run.id)));
        Ok(silent.map(|run| semantic(format!("run {}", run.id), "it has a row but no chain in the log")).collect())
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
