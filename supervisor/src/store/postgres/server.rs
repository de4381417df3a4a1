//! What is asked of the server before anything is stored there: that it keeps what it has acknowledged, and that it is
//! the one that may be written to (`coordination.md` 3.4).

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _, query};

use super::error::{away, failed};
use crate::store::{StoreError, StoreResult};

/// The oldest server whose features and settings are used here.
const OLDEST: i64 = 140_000;

/// A setting that decides whether an acknowledged commit survives, and the values that make it.
const DURABLE: &[(&str, &[&str])] = &[
    ("fsync", &["on"]),
    ("full_page_writes", &["on"]),
    ("synchronous_commit", &["on", "remote_write", "remote_apply"]),
    ("data_sync_retry", &["off"]),
];

/// Checks the server; the identifier of its database system.
pub(super) async fn check(options: &PgConnectOptions) -> StoreResult<String> {
    let mut link = options.connect().await.map_err(|e| failed(&e, None))?;
    let system = checked(&mut link).await;
    // Nothing was asked of it that could be lost.
    let _closed = link.close().await;
    system
}

async fn checked(link: &mut PgConnection) -> StoreResult<String> {
    let facts = "SELECT current_setting('server_version_num')::bigint, pg_is_in_recovery(), \
                 current_setting('transaction_read_only') = 'on', \
                 (SELECT system_identifier::text FROM pg_control_system())";
    let facts = query(facts).fetch_one(&mut *link).await.map_err(|e| failed(&e, None))?;
    let settings = "SELECT name, setting FROM pg_settings WHERE name = ANY($1)";
    let names: Vec<&str> = DURABLE.iter().map(|(name, _)| *name).collect();
    let settings = query(settings).bind(names).fetch_all(&mut *link).await.map_err(|e| failed(&e, None))?;
    let settings: Result<Vec<(String, String)>, _> =
        settings.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let settings = settings.map_err(|e: sqlx::Error| failed(&e, None))?;
    let version: i64 = column(&facts, 0)?;
    let wrong = unsafe_settings(version, &settings);
    if !wrong.is_empty() {
        return Err(StoreError::Unsafe(wrong.join("; ")));
    }
    if column(&facts, 1)? || column(&facts, 2)? {
        let why = "the server is a standby or read-only".to_owned();
        return Err(away(why, "point it at the primary server, with a user that may write"));
    }
    column(&facts, 3)
}

fn column<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    at: usize,
) -> StoreResult<T> {
    row.try_get(at).map_err(|e| failed(&e, None))
}

/// Every setting that is not safe, with its value and what it must be.
fn unsafe_settings(version: i64, settings: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    if version < OLDEST {
        wrong.push(format!("server_version_num is {version}, must be at least {OLDEST}"));
    }
    for (name, safe) in DURABLE {
        let value = settings.iter().find(|(known, _)| known == name).map_or("unknown", |(_, value)| value.as_str());
        if !safe.contains(&value) {
            wrong.push(format!("{name} is {value}, must be {}", safe.join(" or ")));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: i64, changed: &[(&str, &str)]) -> Vec<String> {
        let value = |name: &str, safe: &[&str]| {
            changed.iter().find(|(known, _)| *known == name).map_or(safe[0], |(_, value)| value).to_owned()
        };
        let settings: Vec<_> = DURABLE.iter().map(|(name, safe)| ((*name).to_owned(), value(name, safe))).collect();
        unsafe_settings(version, &settings)
    }

    #[test]
    fn every_unsafe_setting_is_named_with_its_value() {
        assert_eq!(told(150_018, &[]), [""; 0]);
        assert_eq!(told(140_000, &[("synchronous_commit", "remote_apply")]), [""; 0]);
        let all =
            [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "local"), ("data_sync_retry", "on")];
        assert_eq!(
            told(130_009, &all),
            [
                "server_version_num is 130009, must be at least 140000",
                "fsync is off, must be on",
                "full_page_writes is off, must be on",
                "synchronous_commit is local, must be on or remote_write or remote_apply",
                "data_sync_retry is on, must be off",
            ]
        );
        assert_eq!(unsafe_settings(OLDEST, &[]).len(), DURABLE.len(), "what is not known is not safe");
    }
}
