//! Decisions, requests, votes, commands.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{QueryBuilder, query};

use autopack_shared::domain::ids::{RequestId, RowId, RunId, Timestamp};
use autopack_shared::domain::record::{Command, Decision, Request, Vote};

use super::error::Subject;
use super::facts::command;
use super::tx::{PostgresTx, integer, limit, living, maybe_integer, read_living, read_plain, text};
use crate::store::{RequestFilter, Requests, StoreResult, doc};

const COMMAND_COLUMNS: &[&str] = &["done_at", "result"];

fn open_command(row: &PgRow) -> StoreResult<Command> {
    doc::unpack(text(row, 0)?, [("done_at", Value::Null), ("result", Value::Null)])
}

/// Text as JSON: the database's own text lacks one character, and the log pins the row as it was given.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[async_trait]
impl Requests for PostgresTx {
    async fn insert_decision(&mut self, decision: &Decision) -> StoreResult<()> {
        self.touch(&decision.run).await?;
        let subject = Subject::new("decision", &decision.id).of("run", &decision.run);
        let sql = query("INSERT INTO decision (id, run_id, doc) VALUES ($1, $2, $3::json)").bind(decision.id.as_str());
        self.write(&subject, sql.bind(decision.run.as_str()).bind(doc::pack(decision, &[])?)).await?;
        Ok(())
    }

    async fn decision(&mut self, id: &RowId) -> StoreResult<Option<Decision>> {
        let row = self.one(query("SELECT doc::text FROM decision WHERE id = $1").bind(id.as_str())).await?;
        row.map(|row| read_plain(&row)).transpose()
    }

    async fn decisions(&mut self, run: &RunId) -> StoreResult<Vec<Decision>> {
        let sql = "SELECT doc::text FROM decision WHERE run_id = $1 ORDER BY seq";
        self.all(query(sql).bind(run.as_str())).await?.iter().map(read_plain).collect()
    }

    async fn insert_request(&mut self, request: &Request) -> StoreResult<()> {
        self.touch(&request.run).await?;
        let subject = Subject::new("request", &request.id).of("run", &request.run).once(
            &["request_pending_once"],
            "a pending request about",
            request.subject_digest,
        );
        let sql = "INSERT INTO request (id, run_id, phase_id, state, version, subject_digest, expires_at, doc) \
                   VALUES ($1, $2, $3, $4, $5, $6, autopack.instant($7), $8::json)";
        let sql = query(sql).bind(request.id.as_str()).bind(request.run.as_str()).bind(request.phase.as_str());
        let sql = sql.bind(request.state.as_str()).bind(integer(request.version)).bind(request.subject_digest.to_hex());
        self.write(&subject, sql.bind(request.expires_at.as_millis()).bind(living(request)?)).await?;
        Ok(())
    }

    async fn request(&mut self, id: &RequestId) -> StoreResult<Option<Request>> {
        let sql = query("SELECT doc::text, state, version FROM request WHERE id = $1").bind(id.as_str());
        self.look(&["request"], sql).await?.first().map(read_living).transpose()
    }

    async fn requests(&mut self, filter: &RequestFilter) -> StoreResult<Vec<Request>> {
        let mut sql = QueryBuilder::new("SELECT doc::text, state, version FROM request WHERE TRUE");
        if let Some(run) = &filter.run {
            sql.push(" AND run_id = ").push_bind(run.as_str());
        }
        if let Some(phase) = &filter.phase {
            sql.push(" AND phase_id = ").push_bind(phase.as_str());
        }
        if !filter.states.is_empty() {
            let mut states = sql.push(" AND state IN (").separated(", ");
            filter.states.iter().for_each(|state| {
                states.push_bind(state.as_str());
            });
            sql.push(")");
        }
        sql.push(" ORDER BY seq DESC LIMIT ").push_bind(limit(filter.limit));
        self.all(sql.build()).await?.iter().map(read_living).collect()
    }

    async fn update_request(&mut self, request: &mut Request) -> StoreResult<()> {
        self.touch(&request.run).await?;
        let sql = "UPDATE request SET state = $1, version = version + 1, expires_at = autopack.instant($2), doc = $3::json \
                   WHERE id = $4 AND version = $5";
        let sql = query(sql).bind(request.state.as_str()).bind(request.expires_at.as_millis()).bind(living(request)?);
        let sql = sql.bind(request.id.as_str()).bind(integer(request.version));
        let there = query("SELECT 1 FROM request WHERE id = $1").bind(request.id.as_str());
        self.cas(&Subject::new("request", &request.id), &mut request.version, sql, there).await
    }

    async fn next_expiry(&mut self) -> StoreResult<Option<Timestamp>> {
        let sql = "SELECT autopack.millis(min(expires_at)) FROM request WHERE state IN ('pending', 'approved')";
        let Some(row) = self.one(query(sql)).await? else { return Ok(None) };
        Ok(maybe_integer(&row, 0)?.map(Timestamp::from_millis))
    }

    async fn insert_vote(&mut self, vote: &Vote) -> StoreResult<()> {
        if let Some(request) = self.request(&vote.request).await? {
            self.touch(&request.run).await?;
        }
        let subject =
            Subject::new("vote", format!("{} of {}", vote.principal.id, vote.request)).of("request", &vote.request);
        let sql = query("INSERT INTO vote (request_id, principal, doc) VALUES ($1, $2, $3::json)")
            .bind(vote.request.as_str());
        self.write(&subject, sql.bind(vote.principal.id.as_str()).bind(doc::pack(vote, &[])?)).await?;
        Ok(())
    }

    async fn votes(&mut self, request: &RequestId) -> StoreResult<Vec<Vote>> {
        let sql = "SELECT doc::text FROM vote WHERE request_id = $1 ORDER BY seq";
        self.all(query(sql).bind(request.as_str())).await?.iter().map(read_plain).collect()
    }

    async fn insert_command(&mut self, command: &Command) -> StoreResult<()> {
        self.touch(&command.run).await?;
        let subject = Subject::new("command", &command.id).of("run", &command.run);
        let sql = "INSERT INTO command (id, run_id, done_at, result, doc) \
                   VALUES ($1, $2, autopack.instant($3), $4::json, $5::json)";
        let sql = query(sql).bind(command.id.as_str()).bind(command.run.as_str());
        let sql = sql.bind(command.done_at.map(Timestamp::as_millis)).bind(command.result.as_deref().map(quoted));
        self.write(&subject, sql.bind(doc::pack(command, COMMAND_COLUMNS)?)).await?;
        Ok(())
    }

    async fn command(&mut self, id: &RowId) -> StoreResult<Option<Command>> {
        let sql = "SELECT doc::text, autopack.millis(done_at), result::text FROM command WHERE id = $1";
        self.one(query(sql).bind(id.as_str())).await?.as_ref().map(command).transpose()
    }

    async fn open_commands(&mut self, run: Option<&RunId>) -> StoreResult<Vec<Command>> {
        let sql = "SELECT doc::text FROM command WHERE done_at IS NULL AND ($1 IS NULL OR run_id = $1) ORDER BY seq";
        self.all(query(sql).bind(run.map(RunId::as_str))).await?.iter().map(open_command).collect()
    }

    async fn finish_command(&mut self, id: &RowId, at: Timestamp, result: &str) -> StoreResult<()> {
        let sql = "SELECT 1 FROM run WHERE id = (SELECT run_id FROM command WHERE id = $1) FOR NO KEY UPDATE";
        self.writes()?;
        self.one(query(sql).bind(id.as_str())).await?;
        let subject = Subject::new("command", id);
        let sql = query(
            "UPDATE command SET done_at = autopack.instant($1), result = $2::json WHERE id = $3 AND done_at IS NULL",
        );
        if self.write(&subject, sql.bind(at.as_millis()).bind(quoted(result)).bind(id.as_str())).await? == 1 {
            return Ok(());
        }
        match self.one(query("SELECT 1 FROM command WHERE id = $1").bind(id.as_str())).await? {
            Some(_) => Err(subject.conflict(0)),
            None => Err(subject.not_found()),
        }
    }
}
