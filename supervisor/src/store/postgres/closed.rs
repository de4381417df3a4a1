//! Closing the control store's database to other roles of its server: a new database lets every role connect.

use sqlx::{PgPool, Row as _, query, query_scalar, raw_sql};

use super::error::failed;
use super::schema::take_turn;
use crate::store::StoreResult;

/// Where a control store is, and whether others can connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The identifier of its database system.
    pub system: String,
    /// The number of its database.
    pub database: i64,
    /// Why any role of the server can connect, and what to run; none where only those can that were named.
    pub open: Option<String>,
}

/// Takes the right to connect from everybody who was not given it by name, if our user may; says if not.
pub(super) async fn close(pool: &PgPool) -> StoreResult<Place> {
    let sql = |e: sqlx::Error| failed(&e, None);
    let mut tx = pool.begin().await.map_err(sql)?;
    take_turn(&mut tx).await?;
    let facts = "SELECT d.datname::text, d.oid::bigint, (SELECT system_identifier::text FROM pg_control_system()), \
                 has_database_privilege('public', d.oid, 'CONNECT'), pg_has_role(d.datdba, 'USAGE'), \
                 current_user::text FROM pg_database d WHERE d.datname = current_database()";
    let row = query(facts).fetch_one(&mut *tx).await.map_err(sql)?;
    let (name, database): (String, i64) = (row.try_get(0).map_err(sql)?, row.try_get(1).map_err(sql)?);
    let (system, mut open): (String, bool) = (row.try_get(2).map_err(sql)?, row.try_get(3).map_err(sql)?);
    let (owned, user): (bool, String) = (row.try_get(4).map_err(sql)?, row.try_get(5).map_err(sql)?);
    if open && owned {
        // The statement cannot take the name as a parameter.
        let close =
            "DO $$ BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()); END $$";
        raw_sql(close).execute(&mut *tx).await.map_err(sql)?;
        let after = "SELECT has_database_privilege('public', current_database(), 'CONNECT')";
        open = query_scalar(after).fetch_one(&mut *tx).await.map_err(sql)?;
        tracing::info!(database = name, "roles of this server can no longer connect to the control store unless named");
    }
    tx.commit().await.map_err(sql)?;
    let fix = format!(
        "every role may connect to {name}, and {user} does not own it. As its owner: REVOKE CONNECT ON DATABASE {name} \
         FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {user};"
    );
    Ok(Place { system, database, open: open.then_some(fix) })
}
