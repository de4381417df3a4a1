//! Events, notices, idempotent answers, the audit log.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use autopack_shared::domain::audit::{AuditDraft, AuditPlace, AuditRecord, NO_RECORD};
use autopack_shared::domain::ids::{Digest, RowId, RunId, Timestamp};
use autopack_shared::domain::record::{Event, Notice};

use super::error::Subject;
use super::tx::{SqliteTx, bytes, integer, maybe_integer, natural, read_plain, text};
use crate::store::facts::Facts;
use crate::store::{Journal, StoreError, StoreResult, Tx as _, doc};

const NOTICE_COLUMNS: &[&str] = &["sent_at"];

/// Rows whose columns and document disagree.
const SKEWED: &str = "\
    SELECT 'run ' || id FROM run WHERE id IS NOT doc->>'$.id' OR project IS NOT doc->>'$.project' UNION ALL \
    SELECT 'phase ' || run_id || '/' || id FROM phase WHERE id IS NOT doc->>'$.id' OR run_id IS NOT doc->>'$.run' \
        OR ordinal IS NOT doc->>'$.ordinal' UNION ALL \
    SELECT 'attempt ' || run_id || '/' || phase_id || '/' || number FROM attempt WHERE run_id IS NOT doc->>'$.run' \
        OR phase_id IS NOT doc->>'$.phase' OR number IS NOT doc->>'$.number' UNION ALL \
    SELECT 'lease ' || id FROM lease WHERE id IS NOT doc->>'$.id' OR run_id IS NOT doc->>'$.run' \
        OR project IS NOT doc->>'$.project' UNION ALL \
    SELECT 'decision ' || id FROM decision WHERE id IS NOT doc->>'$.id' OR run_id IS NOT doc->>'$.run' UNION ALL \
    SELECT 'request ' || id FROM request WHERE id IS NOT doc->>'$.id' OR run_id IS NOT doc->>'$.run' \
        OR phase_id IS NOT doc->>'$.phase' OR 'sha256:' || subject_digest IS NOT doc->>'$.subject_digest' \
        OR expires_at IS NOT CAST(round(unixepoch(doc->>'$.expires_at', 'subsec') * 1000) AS INTEGER) UNION ALL \
    SELECT 'vote ' || principal || ' on ' || request_id FROM vote WHERE request_id IS NOT doc->>'$.request' \
        OR principal IS NOT doc->>'$.principal.id' UNION ALL \
    SELECT 'apply ' || id FROM apply WHERE id IS NOT doc->>'$.id' OR run_id IS NOT doc->>'$.run' \
        OR target_ref IS NOT doc->>'$.target_ref' OR request_id IS NOT doc->>'$.request' UNION ALL \
    SELECT 'project ' || id FROM project WHERE id IS NOT doc->>'$.id' UNION ALL \
    SELECT 'command ' || id FROM command WHERE id IS NOT doc->>'$.id' OR run_id IS NOT doc->>'$.run' UNION ALL \
    SELECT 'notice ' || id FROM notice WHERE id IS NOT doc->>'$.id' UNION ALL \
    SELECT 'event ' || run_id || '/' || seq FROM event WHERE run_id IS NOT doc->>'$.run' OR seq IS NOT doc->>'$.seq'";

fn digest(row: &SqliteRow, column: usize) -> StoreResult<Digest> {
    let raw = bytes(row, column)?;
    let wrong = |_| StoreError::Corrupt(format!("a digest of {} bytes", raw.len()));
    Ok(Digest::from_bytes(raw.try_into().map_err(wrong)?))
}

fn unsent(row: &SqliteRow) -> StoreResult<Notice> {
    doc::unpack(text(row, 0)?, [("sent_at", Value::Null)])
}

fn audit_record(row: &SqliteRow) -> StoreResult<AuditRecord> {
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

#[async_trait]
impl Journal for SqliteTx {
    async fn append_event(&mut self, event: &mut Event) -> StoreResult<u64> {
        let last = "SELECT doc FROM event WHERE run_id = $1 ORDER BY seq DESC LIMIT 1";
        let last = self.one(query(last).bind(event.run.as_str())).await?;
        let last: Option<Event> = last.map(|row| read_plain(&row)).transpose()?;
        event.follow(last.as_ref()).map_err(|e| StoreError::Corrupt(format!("a line that is no JSON: {e}")))?;
        let seq = event.seq;
        let subject = Subject::new("event", format!("{}/{seq}", event.run)).of("run", &event.run);
        let sql = query("INSERT INTO event (run_id, seq, doc) VALUES ($1, $2, $3)").bind(event.run.as_str());
        self.write(&subject, sql.bind(integer(seq)).bind(doc::pack(event, &[])?)).await?;
        Ok(seq)
    }

    async fn events(&mut self, run: &RunId, after: u64, limit: u32) -> StoreResult<Vec<Event>> {
        let sql = "SELECT doc FROM event WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let sql = query(sql).bind(run.as_str()).bind(integer(after)).bind(i64::from(limit));
        self.all(sql).await?.iter().map(read_plain).collect()
    }

    async fn events_back(&mut self, run: &RunId, before: u64, limit: u32) -> StoreResult<Vec<Event>> {
        let sql = "SELECT doc FROM event WHERE run_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
        let sql = query(sql).bind(run.as_str()).bind(integer(before)).bind(i64::from(limit));
        self.all(sql).await?.iter().map(read_plain).collect()
    }

    async fn insert_notice(&mut self, notice: &Notice) -> StoreResult<()> {
        let sql = query("INSERT INTO notice (id, sent_at, doc) VALUES ($1, $2, $3)").bind(notice.id.as_str());
        let sql = sql.bind(notice.sent_at.map(Timestamp::as_millis)).bind(doc::pack(notice, NOTICE_COLUMNS)?);
        self.write(&Subject::new("notice", &notice.id), sql).await?;
        Ok(())
    }

    async fn unsent_notices(&mut self, limit: u32) -> StoreResult<Vec<Notice>> {
        let sql = "SELECT doc FROM notice WHERE sent_at IS NULL ORDER BY seq LIMIT $1";
        self.all(query(sql).bind(i64::from(limit))).await?.iter().map(unsent).collect()
    }

    async fn mark_sent(&mut self, id: &RowId, at: Timestamp) -> StoreResult<bool> {
        // Sent twice is sent: notices go out at least once.
        let subject = Subject::new("notice", id);
        let sql = query("UPDATE notice SET sent_at = $1 WHERE id = $2 AND sent_at IS NULL");
        if self.write(&subject, sql.bind(at.as_millis()).bind(id.as_str())).await? == 1 {
            return Ok(true);
        }
        let there = self.one(query("SELECT 1 FROM notice WHERE id = $1").bind(id.as_str())).await?;
        there.map(|_| false).ok_or_else(|| subject.not_found())
    }

    async fn idem(&mut self, key: &str, principal: &str, method: &str) -> StoreResult<Option<(Digest, Vec<u8>)>> {
        let sql = "SELECT call, answer FROM idem WHERE key = $1 AND principal = $2 AND method = $3";
        let row = self.one(query(sql).bind(key).bind(principal).bind(method)).await?;
        row.map(|row| Ok((digest(&row, 0)?, bytes(&row, 1)?.to_vec()))).transpose()
    }

    async fn put_idem(
        &mut self,
        key: &str,
        principal: &str,
        method: &str,
        call: Digest,
        answer: &[u8],
    ) -> StoreResult<()> {
        let sql = "INSERT INTO idem (key, principal, method, call, answer, at) VALUES ($1, $2, $3, $4, $5, $6)";
        let sql = query(sql).bind(key).bind(principal).bind(method).bind(&call.as_bytes()[..]).bind(answer);
        let sql = sql.bind(self.now().as_millis());
        self.write(&Subject::new("idempotency key", key), sql).await?;
        Ok(())
    }

    async fn append_audit(&mut self, draft: AuditDraft) -> StoreResult<()> {
        let sql = "SELECT c.cluster_id, c.incarnation, c.leaves, h.seq, h.hash FROM cluster AS c \
                   LEFT JOIN audit_head AS h ON h.chain = $1";
        let gone = || StoreError::Corrupt("the cluster row is missing".to_owned());
        let row = self.one(query(sql).bind(&draft.chain)).await?.ok_or_else(gone)?;
        let (seq, prev_hash) = match maybe_integer(&row, 3)? {
            Some(_) => (natural(&row, 3)? + 1, digest(&row, 4)?),
            None => (1, NO_RECORD),
        };
        let record = draft.seal(&AuditPlace {
            cluster: text(&row, 0)?,
            incarnation: u32::try_from(natural(&row, 1)?).map_err(|_| gone())?,
            seq,
            leaf_index: natural(&row, 2)?,
            prev_hash,
            at: self.now(),
        });
        let sql =
            "INSERT INTO audit (chain, seq, leaf_index, body, prev_hash, hash, at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let sql = query(sql).bind(&record.chain).bind(integer(seq)).bind(integer(record.leaf_index)).bind(&record.body);
        let sql = sql.bind(&record.prev_hash.as_bytes()[..]).bind(&record.hash.as_bytes()[..]);
        let subject = Subject::new("audit record", format!("{}/{seq}", record.chain));
        self.write(&subject, sql.bind(record.at.as_millis())).await?;
        Ok(())
    }

    async fn audit(&mut self, chain: &str, from_seq: u64, limit: u32) -> StoreResult<Vec<AuditRecord>> {
        let sql = "SELECT chain, seq, leaf_index, body, prev_hash, hash, at FROM audit \
                   WHERE chain = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
        let sql = query(sql).bind(chain).bind(integer(from_seq)).bind(i64::from(limit));
        self.all(sql).await?.iter().map(audit_record).collect()
    }

    async fn audit_heads(&mut self) -> StoreResult<Vec<(String, u64, Digest)>> {
        let rows = self.all(query("SELECT chain, seq, hash FROM audit_head ORDER BY chain")).await?;
        rows.iter().map(|row| Ok((text(row, 0)?.to_owned(), natural(row, 1)?, digest(row, 2)?))).collect()
    }

    async fn skewed_rows(&mut self) -> StoreResult<Vec<String>> {
        let rows = self.all(query(SKEWED)).await?;
        rows.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
    }

    async fn facts(&mut self) -> StoreResult<Facts> {
        self.all_facts().await
    }
}
