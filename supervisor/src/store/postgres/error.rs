//! What PostgreSQL said, as what the store says, by its error codes. Nothing here repeats a URL or a password: the
//! driver's errors name neither.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

pub(super) use crate::store::subject::Subject;

use crate::store::StoreError;
use crate::store::subject::rule;

const AGAIN: &str = "another transaction was in the way: try again";

/// An answer, or that none came in time: a server behind a broken network says nothing at all.
pub(super) async fn within<T>(
    time: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", time.as_secs()));
    tokio::time::timeout(time, answer).await.unwrap_or_else(|_| Err(sqlx::Error::Io(silent())))
}

/// The store's word for a failure of the server or of the driver.
pub(super) fn failed(error: &sqlx::Error, subject: Option<&Subject>) -> StoreError {
    let text = || error.to_string();
    if let sqlx::Error::Database(database) = error {
        return match database.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => refused(error, subject),
            None => StoreError::Corrupt(text()),
        };
    }
    if matches!(error, sqlx::Error::PoolTimedOut) {
        away(text(), "the database server does not answer or is overloaded: check it and try again")
    } else if matches!(error, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) {
        away(text(), "the store is closed: start the command or the supervisor again")
    } else if matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) {
        away(text(), "check that the database server runs and can be reached, and try again")
    } else if matches!(error, sqlx::Error::Configuration(_)) {
        // What it complains about may be a part of the URL.
        away("a setting of the connection is not valid".to_owned(), "check the URL of the control store")
    } else {
        StoreError::Corrupt(text())
    }
}

fn refused(error: &PgDatabaseError, subject: Option<&Subject>) -> StoreError {
    let parts = (error.code(), error.message(), error.detail().unwrap_or_default());
    told((parts.0, parts.1, parts.2, error.constraint().unwrap_or_default()), subject)
}

/// The store's word for what the server told: code, message, detail, constraint.
pub(super) fn told(
    (code, message, detail, constraint): (&str, &str, &str, &str),
    subject: Option<&Subject>,
) -> StoreError {
    if let Some(rule) = rule(code, message, subject) {
        return rule;
    }
    match (code, subject) {
        ("AP001", _) => return fenced(detail),
        ("23505", Some(subject)) => return subject.exists(constraint),
        ("23503", Some(subject)) => return subject.orphan(),
        (..) => {}
    }
    let why = format!("{message} (SQLSTATE {code})");
    if let Some(hint) = hint(code) {
        return away(why, hint);
    }
    if code == "53100" { StoreError::Full(why) } else { StoreError::Corrupt(why) }
}

/// A stale token, as `scope#epoch` of the current one; the caller knows what it held.
fn fenced(detail: &str) -> StoreError {
    let (scope, current) = detail.rsplit_once('#').unwrap_or((detail, ""));
    StoreError::Fenced { scope: scope.to_owned(), held: 0, current: current.parse().ok() }
}

/// What to do about a code that says the server cannot do it now; none for a code that says something else.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "40001" | "40P01" | "55P03" | "57014" => AGAIN,
        "25P02" | "25P03" | "25P04" => "the transaction took too long or failed before: begin again",
        "25006" => "the server is a standby or read-only: point it at the primary server",
        "3D000" => "make the database, or correct its name",
        "42501" => "give its user the right to make and write the schema autopack in the database",
        "55000" | "55006" => "wait a moment and try again",
        "53000" | "53200" | "53300" | "53400" => "the server is out of connections or memory: wait, or give it more",
        "58000" | "58030" => "check the disk of the database server",
        code if code.starts_with("57P") || code.starts_with("08") => "the server is stopping or starting: try again",
        code if code.starts_with("28") => "check user and password of the control store, and pg_hba.conf of its server",
        _ => return None,
    })
}

pub(super) const fn away(why: String, hint: &'static str) -> StoreError {
    StoreError::Unavailable { why, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_token_names_the_current_one() {
        let told = |detail| {
            let StoreError::Fenced { scope, current, .. } = fenced(detail) else { panic!("{detail}") };
            (scope, current)
        };
        assert_eq!(told("run/a#7"), ("run/a".to_owned(), Some(7)));
        assert_eq!(told("run/a#"), ("run/a".to_owned(), None));
    }

    #[test]
    fn what_passes_by_itself_says_so() {
        for code in ["40001", "40P01", "55P03", "57014"] {
            assert_eq!(hint(code), Some(AGAIN), "{code}");
        }
        for code in ["08006", "57P01", "57P03", "28P01", "25006", "53300", "3D000"] {
            assert!(hint(code).is_some(), "{code}");
        }
        for code in ["23514", "42P01", "XX001", "53100"] {
            assert_eq!(hint(code), None, "{code}");
        }
    }
}
