//! Rows whose columns and documents disagree. They are compared here and not by the database, which cannot take apart
//! every document that it holds: text in it may have characters that its own text type lacks.

use futures::TryStreamExt as _;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Row as _, query};

use autopack_shared::domain::ids::Timestamp;

use super::error::failed;
use super::tx::{PostgresTx, text};
use crate::store::StoreResult;

/// One table: what a row is called, and its keys as text, each with where its document has it.
struct Keys {
    noun: &'static str,
    /// Selects the document, then the name of the row, then the keys.
    sql: &'static str,
    pointers: &'static [&'static str],
}

const TABLES: &[Keys] = &[
    Keys {
        noun: "run",
        sql: "SELECT doc::text, id, id, project FROM run ORDER BY seq",
        pointers: &["/id", "/project"],
    },
    Keys {
        noun: "phase",
        sql: "SELECT doc::text, run_id || '/' || id, id, run_id, ordinal::text FROM phase ORDER BY run_id, ordinal",
        pointers: &["/id", "/run", "/ordinal"],
    },
    Keys {
        noun: "attempt",
        sql: "SELECT doc::text, run_id || '/' || phase_id || '/' || number, run_id, phase_id, number::text \
              FROM attempt \
              ORDER BY run_id, phase_id, number",
        pointers: &["/run", "/phase", "/number"],
    },
    Keys {
        noun: "lease",
        sql: "SELECT doc::text, id, id, run_id, workspace, project FROM lease ORDER BY seq",
        pointers: &["/id", "/run", "/run", "/project"],
    },
    Keys {
        noun: "decision",
        sql: "SELECT doc::text, id, id, run_id FROM decision ORDER BY seq",
        pointers: &["/id", "/run"],
    },
    Keys {
        noun: "request",
        sql: "SELECT doc::text, id, id, run_id, phase_id, 'sha256:' || subject_digest, \
              autopack.millis(expires_at)::text FROM request ORDER BY seq",
        pointers: &["/id", "/run", "/phase", "/subject_digest", "/expires_at"],
    },
    Keys {
        noun: "vote",
        sql: "SELECT doc::text, principal || ' on ' || request_id, request_id, principal FROM vote ORDER BY seq",
        pointers: &["/request", "/principal/id"],
    },
    Keys {
        noun: "apply",
        sql: "SELECT doc::text, id, id, run_id, target_ref, request_id FROM apply ORDER BY seq",
        pointers: &["/id", "/run", "/target_ref", "/request"],
    },
    Keys { noun: "project", sql: "SELECT doc::text, id, id FROM project ORDER BY id", pointers: &["/id"] },
    Keys {
        noun: "command",
        sql: "SELECT doc::text, id, id, run_id FROM command ORDER BY seq",
        pointers: &["/id", "/run"],
    },
    Keys { noun: "notice", sql: "SELECT doc::text, id, id FROM notice ORDER BY seq", pointers: &["/id"] },
    Keys {
        noun: "event",
        sql: "SELECT doc::text, run_id || '/' || seq, run_id, seq::text FROM event ORDER BY run_id, event.seq",
        pointers: &["/run", "/seq"],
    },
];

/// A key as a document has it; instants as the columns have them, in milliseconds.
fn in_document(doc: &Value, pointer: &str) -> Option<String> {
    match doc.pointer(pointer)? {
        Value::Null => None,
        value @ Value::String(_) if pointer == "/expires_at" => {
            let at = serde_json::from_value::<Timestamp>(value.clone());
            Some(at.map_or_else(|_| value.to_string(), |at| at.as_millis().to_string()))
        }
        Value::String(text) => Some(text.clone()),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(other.to_string()),
    }
}

fn skewed(row: &PgRow, pointers: &[&str]) -> StoreResult<bool> {
    let Ok(doc) = serde_json::from_str::<Value>(text(row, 0)?) else { return Ok(true) };
    for (pointer, column) in pointers.iter().zip(2..) {
        let key: Option<&str> = row.try_get(column).map_err(|e| failed(&e, None))?;
        if in_document(&doc, pointer).as_deref() != key {
            return Ok(true);
        }
    }
    Ok(false)
}

impl PostgresTx {
    /// Every row whose columns and document disagree, as `noun id`.
    pub(super) async fn find_skewed(&mut self) -> StoreResult<Vec<String>> {
        self.be_patient().await?;
        let mut found = Vec::new();
        for table in TABLES {
            // Row by row: memory goes by what is wrong.
            let mut rows = query(table.sql).fetch(self.link().await?);
            let failure = loop {
                match rows.try_next().await {
                    Ok(Some(row)) if skewed(&row, table.pointers)? => {
                        found.push(format!("{} {}", table.noun, text(&row, 1)?));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            drop(rows);
            if let Some(error) = failure {
                return Err(self.give_up(&error, None));
            }
        }
        Ok(found)
    }
}
