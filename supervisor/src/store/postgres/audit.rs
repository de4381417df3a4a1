//! The end of a transaction for the log: its records get their places when everything else is written. So the heads of
//! chains, which many transactions want, are the last locks that one takes, always in the order of their names, and
//! are held for as long as the commit takes.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::query;

use autopack_shared::domain::audit::{AuditDraft, AuditPlace, AuditRecord};
use autopack_shared::domain::ids::{Digest, Timestamp};

use super::error::Subject;
use super::tx::{PostgresTx, bytes, integer, maybe_integer, natural, text};
use crate::store::{Fences as _, StoreError, StoreResult, Tx as _};

/// A chain's last record.
type Head = (u64, Digest);

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

impl PostgresTx {
    /// Writes the records that wait.
    pub(super) async fn write_audit(&mut self) -> StoreResult<()> {
        let drafts = std::mem::take(&mut self.drafts);
        if drafts.is_empty() {
            return Ok(());
        }
        let chains: BTreeSet<&str> = drafts.iter().map(|draft| draft.chain.as_str()).collect();
        let heads = self.lock_heads(&chains.into_iter().map(str::to_owned).collect::<Vec<_>>()).await?;
        let (cluster, incarnation) = (self.cluster_id().await?, self.incarnation().await?);
        let records = self.sealed(drafts, heads, &cluster, incarnation)?;
        self.insert_records(&records).await
    }

    async fn lock_heads(&mut self, chains: &[String]) -> StoreResult<BTreeMap<String, Head>> {
        let rows = self.all(query("SELECT chain, seq, hash FROM autopack.lock_heads($1)").bind(chains)).await?;
        rows.iter().map(|row| Ok((text(row, 0)?.to_owned(), (natural(row, 1)?, digest(row, 2)?)))).collect()
    }

    fn sealed(
        &self,
        drafts: Vec<AuditDraft>,
        mut heads: BTreeMap<String, Head>,
        cluster: &str,
        incarnation: u32,
    ) -> StoreResult<Vec<AuditRecord>> {
        let mut records = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let gone = || StoreError::Corrupt("the head of an audit chain is missing".to_owned());
            let head = heads.get_mut(&draft.chain).ok_or_else(gone)?;
            let (seq, prev_hash) = (head.0 + 1, head.1);
            // The position in the whole log is given by the database.
            let place = AuditPlace { cluster, incarnation, seq, leaf_index: 0, prev_hash, at: self.now() };
            let record = draft.seal(&place);
            *head = (seq, record.hash);
            records.push(record);
        }
        Ok(records)
    }

    async fn insert_records(&mut self, records: &[AuditRecord]) -> StoreResult<()> {
        let column = |of: fn(&AuditRecord) -> &str| records.iter().map(of).collect::<Vec<_>>();
        let hashes = |of: fn(&AuditRecord) -> &Digest| records.iter().map(|r| of(r).as_bytes().to_vec()).collect();
        let (prev, hash): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (hashes(|r| &r.prev_hash), hashes(|r| &r.hash));
        let seqs: Vec<i64> = records.iter().map(|record| integer(record.seq)).collect();
        let sql = "INSERT INTO audit (chain, seq, body, prev_hash, hash, at) SELECT chain, seq, body, prev, hash, $6 \
                   FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::bytea[]) WITH ORDINALITY \
                   AS r (chain, seq, body, prev, hash, place) ORDER BY place";
        let sql = query(sql).bind(column(|r| &r.chain)).bind(seqs).bind(column(|r| &r.body)).bind(prev).bind(hash);
        let subject = Subject::new("audit records", records.len());
        self.write(&subject, sql.bind(self.now().as_millis())).await?;
        Ok(())
    }
}
