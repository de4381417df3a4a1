//! The end of a transaction for the log: its records get their places when everything else is written. So the heads of
//! chains, which many transactions want, are the last locks that one takes, always in the order of their names, and
//! are held for as long as the commit takes.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::query;

use autopack_shared::domain::audit::{AuditDraft, AuditPlace, AuditRecord};
use autopack_shared::domain::ids::{Digest, Timestamp};

use super::puts;
use super::tx::{PostgresTx, Sql, bytes, integer, maybe_integer, natural, text};
use crate::store::{StoreError, StoreResult, Tx as _};

/// A chain's last record.
pub(super) type Head = (u64, Digest);

/// The head of a chain without records.
pub(super) const NOTHING: Head = (0, Digest::from_bytes([0; 32]));

/// A digest column.
pub(super) fn digest(row: &PgRow, column: usize) -> StoreResult<Digest> {
    let raw = bytes(row, column)?;
    let wrong = |_| StoreError::Corrupt(format!("a digest of {} bytes", raw.len()));
    Ok(Digest::from_bytes(raw.try_into().map_err(wrong)?))
}

/// A record from `chain, seq, leaf_index, body, prev_hash, hash, at`.
pub(super) fn record(row: &PgRow) -> StoreResult<AuditRecord> {
    Ok(AuditRecord {
        chain: text(row, 0)?.to_owned(),
        seq: natural(row, 1)?,
        leaf_index: natural(row, 2)?,
        body: text(row, 3)?.to_owned(),
        prev_hash: digest(row, 4)?,
        hash: digest(row, 5)?,
        at: Timestamp::from_millis(maybe_integer(row, 6)?.unwrap_or(0)),
    })
}

/// Records with the places that they have if the heads of their chains are what they are taken for.
pub(super) struct Sealed {
    /// The chains, by name.
    chains: Vec<String>,
    /// Their heads as they are taken to be.
    before: Vec<Head>,
    records: Vec<AuditRecord>,
    after: Vec<Head>,
}

impl Sealed {
    pub(super) fn into_records(self) -> Vec<AuditRecord> {
        self.records
    }
}

/// Gives a statement the heads and the records as its next nine values.
fn bind<'q>(sql: Sql<'q>, sealed: &Sealed, at: Timestamp) -> Sql<'q> {
    let records = &sealed.records;
    let column = |of: fn(&AuditRecord) -> &str| records.iter().map(|r| of(r).to_owned()).collect::<Vec<_>>();
    let raw = |digest: &Digest| digest.as_bytes().to_vec();
    let seqs = |heads: &[Head]| heads.iter().map(|(seq, _)| integer(*seq)).collect::<Vec<_>>();
    let sql = sql.bind(sealed.chains.clone()).bind(seqs(&sealed.before));
    let sql = sql.bind(sealed.before.iter().map(|(_, hash)| raw(hash)).collect::<Vec<_>>());
    let sql = sql.bind(column(|r| &r.chain)).bind(records.iter().map(|r| integer(r.seq)).collect::<Vec<_>>());
    let sql = sql.bind(column(|r| &r.body)).bind(records.iter().map(|r| raw(&r.prev_hash)).collect::<Vec<_>>());
    sql.bind(records.iter().map(|r| raw(&r.hash)).collect::<Vec<_>>()).bind(at.as_millis())
}

impl PostgresTx {
    /// Writes the records that wait.
    pub(super) async fn write_audit(&mut self) -> StoreResult<()> {
        self.flush().await?;
        let drafts = std::mem::take(&mut self.drafts);
        if drafts.is_empty() {
            return Ok(());
        }
        let sql = "SELECT chain, seq, hash FROM autopack.append($1, $2, $3, $4, $5, $6, $7, $8, $9, false)";
        for _ in 0..2 {
            let sealed = self.sealed(&drafts);
            let heads = self.rows(bind(query(sql), &sealed, self.now())).await?;
            if !self.corrected(&heads, 0)? {
                self.appended += integer(sealed.records.len() as u64);
                self.heads.extend(sealed.chains.into_iter().zip(sealed.after));
                return Ok(());
            }
        }
        Err(StoreError::Corrupt("the heads of the audit log change while they are locked".to_owned()))
    }

    /// The end of a transaction: the writes and records that wait, the checks that wait for the end, the clock.
    pub(super) async fn finish(&mut self) -> StoreResult<()> {
        let (mut puts, drafts) = (std::mem::take(&mut self.puts), std::mem::take(&mut self.drafts));
        let sql = "SELECT place, code, message, detail, name, chain, seq, hash \
                   FROM autopack.finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
                   $18, $19)";
        for _ in 0..2 {
            let sealed = self.sealed(&drafts);
            let asked = bind(puts::bind(query(sql), &puts.iter().collect::<Vec<_>>()), &sealed, self.now())
                .bind(self.leases)
                .bind(self.appended);
            let answer = self.rows(asked).await?;
            for row in &answer {
                if let Some(refusal) = puts::refusal(&puts, row)? {
                    return Err(self.refused(refusal));
                }
            }
            if !self.corrected(&answer, 5)? {
                return Ok(());
            }
            // These are written; only the records have to be sealed anew, on the heads that are locked now.
            puts.clear();
        }
        Err(StoreError::Corrupt("the heads of the audit log change while they are locked".to_owned()))
    }

    /// Takes in heads that are not what they were taken for, from `chain, seq, hash`; whether there were any.
    fn corrected(&mut self, rows: &[PgRow], at: usize) -> StoreResult<bool> {
        for row in rows {
            let head = (natural(row, at + 1)?, digest(row, at + 2)?);
            self.heads.insert(text(row, at)?.to_owned(), head);
        }
        Ok(!rows.is_empty())
    }

    /// Seals records on the heads that are known; one that is not known is taken for that of an empty chain.
    pub(super) fn sealed(&self, drafts: &[AuditDraft]) -> Sealed {
        let names: BTreeSet<&str> = drafts.iter().map(|draft| draft.chain.as_str()).collect();
        let head = |name: &&str| self.heads.get(*name).copied().unwrap_or(NOTHING);
        let mut heads: BTreeMap<&str, Head> = names.iter().map(|name| (*name, head(name))).collect();
        let before = heads.values().copied().collect();
        let (cluster, incarnation) = (self.place.0.as_str(), self.place.1);
        let mut records = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let last = heads.entry(draft.chain.as_str()).or_insert(NOTHING);
            let (seq, prev_hash) = (last.0 + 1, last.1);
            // The position in the whole log is given by the database.
            let place = AuditPlace { cluster, incarnation, seq, leaf_index: 0, prev_hash, at: self.now() };
            let record = draft.clone().seal(&place);
            *last = (seq, record.hash);
            records.push(record);
        }
        let (chains, after) = heads.into_iter().map(|(name, head)| (name.to_owned(), head)).unzip();
        Sealed { chains, before, records, after }
    }
}
