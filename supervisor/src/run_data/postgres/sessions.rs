//! Ending the sessions of logins that are off. A role that was taken away does not end what a session has begun: one
//! that had set its role goes on writing until it is ended.

use std::time::Duration;

use sqlx::{PgConnection, query_scalar};
use tokio::time::Instant;

use super::error::{failed, unavailable};
use crate::run_data::RunDataResult;

/// How long sessions may take to end, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Ends the sessions of these roles, and waits until none is left.
pub(super) async fn end(link: &mut PgConnection, logins: &[String]) -> RunDataResult<()> {
    if logins.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    let mut clear = 0;
    // Twice: one that was about to be listed at the first look is there at the second.
    while clear < 2 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = ANY($1)";
        let left: i64 = query_scalar(sql).bind(logins).fetch_one(&mut *link).await.map_err(|e| failed(&e))?;
        clear = if left == 0 { clear + 1 } else { 0 };
        if clear < 2 {
            if Instant::now() > deadline {
                let why = format!("{left} sessions of an earlier epoch do not end");
                return Err(unavailable(why, "end them, or restart it"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Ends the sessions of every login of ours that is off.
pub(super) async fn sweep(link: &mut PgConnection) -> RunDataResult<u64> {
    let sql = "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid \
               WHERE NOT r.rolcanlogin AND r.rolname ~ '^ap_[0-9a-f]{16}_'";
    let ended: i64 = query_scalar(sql).fetch_one(link).await.map_err(|e| failed(&e))?;
    Ok(u64::try_from(ended).unwrap_or(0))
}
