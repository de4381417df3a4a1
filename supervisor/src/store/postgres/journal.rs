//! Events, notices, idempotent answers, the audit log.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::query;

use autopack_shared::domain::audit::{AuditDraft, AuditRecord};
use autopack_shared::domain::ids::{Digest, RowId, RunId, Timestamp};
use autopack_shared::domain::record::{Event, Notice};

use super::audit::{digest, record};
use super::error::Subject;
use super::puts::Put;
use super::tx::{PostgresTx, bytes, integer, natural, read_plain, text};
use crate::store::facts::Facts;
use crate::store::{Journal, StoreError, StoreResult, Tx as _, doc};

const NOTICE_COLUMNS: &[&str] = &["sent_at"];

fn unsent(row: &PgRow) -> StoreResult<Notice> {
    doc::unpack(text(row, 0)?, [("sent_at", Value::Null)])
}

#[async_trait]
impl Journal for PostgresTx {
    async fn append_event(&mut self, event: &mut Event) -> StoreResult<u64> {
        self.touch(&event.run).await?;
        let orphan = Subject::new("event", &event.run).of("run", &event.run);
        let last = self.held.get(&event.run).ok_or_else(|| orphan.orphan())?;
        event.follow(last.as_ref()).map_err(|e| StoreError::Corrupt(format!("a line that is no JSON: {e}")))?;
        let subject = Subject::new("event", format!("{}/{}", event.run, event.seq)).of("run", &event.run);
        let put = Put::new("event+", &event.run, "", doc::pack(event, &[])?, subject);
        self.put(put.numbered(integer(event.seq))).await?;
        self.held.insert(event.run.clone(), Some(event.clone()));
        Ok(event.seq)
    }

    async fn events(&mut self, run: &RunId, after: u64, limit: u32) -> StoreResult<Vec<Event>> {
        let sql = "SELECT doc::text FROM event WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let sql = query(sql).bind(run.as_str()).bind(integer(after)).bind(i64::from(limit));
        self.look(&["event"], sql).await?.iter().map(read_plain).collect()
    }

    async fn events_back(&mut self, run: &RunId, before: u64, limit: u32) -> StoreResult<Vec<Event>> {
        let sql = "SELECT doc::text FROM event WHERE run_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
        let sql = query(sql).bind(run.as_str()).bind(integer(before)).bind(i64::from(limit));
        self.look(&["event"], sql).await?.iter().map(read_plain).collect()
    }

    async fn insert_notice(&mut self, notice: &Notice) -> StoreResult<()> {
        let sql = query("INSERT INTO notice (id, sent_at, doc) VALUES ($1, autopack.instant($2), $3::json)")
            .bind(notice.id.as_str());
        let sql = sql.bind(notice.sent_at.map(Timestamp::as_millis)).bind(doc::pack(notice, NOTICE_COLUMNS)?);
        self.write(&Subject::new("notice", &notice.id), sql).await?;
        Ok(())
    }

    async fn unsent_notices(&mut self, limit: u32) -> StoreResult<Vec<Notice>> {
        let sql = "SELECT doc::text FROM notice WHERE sent_at IS NULL ORDER BY seq LIMIT $1";
        self.all(query(sql).bind(i64::from(limit))).await?.iter().map(unsent).collect()
    }

    async fn mark_sent(&mut self, id: &RowId, at: Timestamp) -> StoreResult<bool> {
        // Sent twice is sent: notices go out at least once.
        let subject = Subject::new("notice", id);
        let sql = query("UPDATE notice SET sent_at = autopack.instant($1) WHERE id = $2 AND sent_at IS NULL");
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
        let sql = "INSERT INTO idem (key, principal, method, call, answer, at) \
                   VALUES ($1, $2, $3, $4, $5, autopack.instant($6))";
        let sql = query(sql).bind(key).bind(principal).bind(method).bind(&call.as_bytes()[..]).bind(answer);
        let sql = sql.bind(self.now().as_millis());
        self.write(&Subject::new("idempotency key", key), sql).await?;
        Ok(())
    }

    async fn append_audit(&mut self, draft: AuditDraft) -> StoreResult<()> {
        self.writes()?;
        self.drafts.push(draft);
        Ok(())
    }

    async fn audit(&mut self, chain: &str, from_seq: u64, limit: u32) -> StoreResult<Vec<AuditRecord>> {
        self.write_audit().await?;
        let sql = "SELECT chain, seq, coalesce(leaf_index, 9223372036854775807), body, prev_hash, hash, at FROM audit \
                   WHERE chain = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
        let sql = query(sql).bind(chain).bind(integer(from_seq)).bind(i64::from(limit));
        self.all(sql).await?.iter().map(record).collect()
    }

    async fn audit_heads(&mut self) -> StoreResult<Vec<(String, u64, Digest)>> {
        self.write_audit().await?;
        let sql = "SELECT chain, seq, hash FROM audit_head WHERE seq > 0 ORDER BY chain";
        let rows = self.all(query(sql)).await?;
        rows.iter().map(|row| Ok((text(row, 0)?.to_owned(), natural(row, 1)?, digest(row, 2)?))).collect()
    }

    async fn skewed_rows(&mut self) -> StoreResult<Vec<String>> {
        self.find_skewed().await
    }

    async fn facts(&mut self) -> StoreResult<Facts> {
        self.all_facts().await
    }
}
