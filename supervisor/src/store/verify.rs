//! `audit verify` over a store: every chain recomputed, the whole log gap-free, and the rows of requests and applies
//! equal to what the log says became of them (`audit.md` 6.3). It reads through the port, so every engine has it.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::{AuditBreak, AuditEntry, AuditObject, ChainCheck};
use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::state::{ApplyState, RequestState};

use super::{RequestFilter, RunFilter, Store, StoreError, StoreResult, Tx};

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
        log.check_chain(view.as_mut(), &chain, (seq, hash)).await?;
    }
    log.check_positions();
    log.check_rows(view.as_mut()).await?;
    Ok(log.report)
}

/// The log as far as it has been read.
#[derive(Default)]
struct Log {
    report: AuditReport,
    /// Where each record stands in the whole log.
    positions: Vec<u64>,
    /// The last state the log knows of each request and apply.
    states: BTreeMap<AuditObject, String>,
}

impl Log {
    async fn check_chain(&mut self, view: &mut dyn Tx, chain: &str, head: (u64, Digest)) -> StoreResult<()> {
        let mut check = ChainCheck::new(chain);
        let mut from = 1;
        loop {
            let page = view.audit(chain, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.seq.saturating_add(1);
            for record in &page {
                self.positions.push(record.leaf_index);
                self.report.records += 1;
                match check.push(record) {
                    Ok(entry) => self.replay(entry),
                    Err(found) => {
                        self.report.breaks.push(found);
                        return Ok(());
                    }
                }
            }
        }
        self.report.breaks.extend(check.finish(head).err());
        Ok(())
    }

    fn replay(&mut self, entry: AuditEntry) {
        if let Some(state) = state_after(&entry) {
            self.states.insert(entry.object, state);
        }
    }

    /// A chain that is gone with its head leaves a hole in the numbering of the whole log.
    fn check_positions(&mut self) {
        self.positions.sort_unstable();
        let hole = self.positions.iter().zip(0..).find(|(position, expected)| *position != expected);
        if let (Some((_, expected)), true) = (hole, self.report.breaks.is_empty()) {
            let why = format!("no chain has the record at position {expected} of the whole log");
            self.report.breaks.push(AuditBreak::Chain { chain: "(all)".to_owned(), seq: expected, why });
        }
    }

    async fn check_rows(&mut self, view: &mut dyn Tx) -> StoreResult<()> {
        match rows(view).await {
            Ok(rows) => {
                for (object, state) in rows {
                    self.compare(&object, &state);
                }
                Ok(())
            }
            // A row that cannot be read is not what was audited.
            Err(StoreError::Corrupt(why)) => {
                self.report.breaks.push(AuditBreak::Semantic { object: "a row".to_owned(), why });
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn compare(&mut self, object: &AuditObject, state: &str) {
        let known = self.states.get(object).map(String::as_str);
        if known != Some(state) {
            let known = known.unwrap_or("nothing");
            let why = format!("the row says {state}, the log says {known}");
            self.report.breaks.push(AuditBreak::Semantic { object: format!("{} {}", object.kind, object.id), why });
        }
    }
}

/// Every request and apply, and where it stands.
async fn rows(view: &mut dyn Tx) -> StoreResult<Vec<(AuditObject, String)>> {
    let object = |kind: &str, id: String| AuditObject { kind: kind.to_owned(), id };
    let mut rows = Vec::new();
    for request in view.requests(&RequestFilter::default()).await? {
        rows.push((object(RequestState::MACHINE, request.id.to_string()), request.state.to_string()));
    }
    for run in view.runs(&RunFilter::default()).await? {
        for apply in view.applies(&run.id).await? {
            rows.push((object(ApplyState::MACHINE, apply.id.to_string()), apply.state.to_string()));
        }
    }
    Ok(rows)
}

/// The state that an entry puts its request or apply in: the one it names, else the one its operation is called by.
fn state_after(entry: &AuditEntry) -> Option<String> {
    let (noun, verb) = entry.op.split_once('.')?;
    let state = entry.after_state.as_deref().unwrap_or(if verb == "created" { "pending" } else { verb });
    let known = match noun {
        "request" => state.parse::<RequestState>().is_ok(),
        "apply" => state.parse::<ApplyState>().is_ok(),
        _ => false,
    };
    (known && noun == entry.object.kind).then(|| state.to_owned())
}
