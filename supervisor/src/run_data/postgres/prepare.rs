//! What is asked of the server before a run has data there: that it is not the control store's, that nobody gets in
//! without a password, and that our login may do what is needed. Then the registry is made.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _, query, query_scalar, raw_sql};

use super::error::{failed, is_past_the_door};
use super::login::Key;
use super::registry::{MAKE, take_turn};
use super::{PostgresRunDatabases, Ready, TURN};
use crate::run_data::{RunDataError, RunDataResult};

/// The oldest server whose features are used here.
const OLDEST: i64 = 140_000;
/// The form of the registry.
const FORMAT: i32 = 1;
/// A role that nobody has.
const NOBODY: &str = "ap_nobody";

/// What a server says of itself and of our login.
struct Facts {
    database: String,
    version: i64,
    superuser: bool,
    wrong: Option<String>,
}

impl PostgresRunDatabases {
    pub(super) async fn prepare(&self) -> RunDataResult<Ready> {
        let mut link = self.pool.acquire().await.map_err(|e| failed(&e))?;
        let facts = self.look(&mut link).await?;
        if let Some(wrong) = facts.wrong {
            return Err(RunDataError::Unsafe(wrong));
        }
        self.try_the_door(&facts.database).await?;
        let key = self.register(&mut link).await?;
        tell_of_others(&mut link).await?;
        Ok(Ready { key, database: facts.database, version: facts.version, superuser: facts.superuser })
    }

    async fn look(&self, link: &mut PgConnection) -> RunDataResult<Facts> {
        let sql = "SELECT current_setting('server_version_num')::bigint AS version, current_database()::text AS name, \
                   (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS number, \
                   (SELECT system_identifier::text FROM pg_control_system()) AS system, r.rolsuper, \
                   r.rolcreaterole AND r.rolcreatedb AND pg_has_role('pg_signal_backend', 'USAGE') \
                   AND has_database_privilege(current_database(), 'CREATE') AS able \
                   FROM pg_roles r WHERE r.rolname = current_user";
        let row = query(sql).fetch_one(link).await.map_err(|e| failed(&e))?;
        let get = |e: sqlx::Error| failed(&e);
        let (database, version): (String, i64) =
            (row.try_get("name").map_err(get)?, row.try_get("version").map_err(get)?);
        let (number, system): (i64, String) =
            (row.try_get("number").map_err(get)?, row.try_get("system").map_err(get)?);
        let superuser: bool = row.try_get("rolsuper").map_err(get)?;
        let able: bool = row.try_get("able").map_err(get)?;
        let beside = system == self.control.system;
        let wrong = if beside && number == self.control.database {
            Some(format!("{database} is the control store's own database: make another one for runs"))
        } else if let (true, Some(open)) = (beside, &self.control.open) {
            Some(format!("runs could connect to the control store on the same server: {open}"))
        } else if version < OLDEST {
            Some(format!("server_version_num is {version}, must be at least {OLDEST}"))
        } else if !superuser && !able {
            let needs = "CREATEROLE, CREATEDB, membership in pg_signal_backend and CREATE in the database";
            Some(format!("its login needs {needs}"))
        } else {
            None
        };
        Ok(Facts { database, version, superuser, wrong })
    }

    /// Knocks as somebody who does not exist: where the answer is not about the password, none is asked for, and each
    /// run could log in as any other.
    async fn try_the_door(&self, database: &str) -> RunDataResult<()> {
        let (host, port) = &self.place;
        let options = PgConnectOptions::new_without_pgpass().host(host).port(*port).database(database);
        let options = options.username(NOBODY).password("none");
        match tokio::time::timeout(TURN, options.connect()).await {
            Ok(Err(error)) if is_past_the_door(&error) => {
                let why = "pg_hba.conf asks no password of its roles, so that any run could be any other: use \
                           scram-sha-256 for every role but those you trust";
                Err(RunDataError::Unsafe(why.to_owned()))
            }
            Ok(Ok(_)) => Err(RunDataError::Unsafe(format!("role {NOBODY} can log in: drop it"))),
            // Refused, or not to be reached from here: workers will tell.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// Makes the registry, or finds it; the key in it.
    async fn register(&self, link: &mut PgConnection) -> RunDataResult<Key> {
        let mut tx = link.begin().await.map_err(|e| failed(&e))?;
        take_turn(&mut tx).await?;
        raw_sql(MAKE).execute(&mut *tx).await.map_err(|e| failed(&e))?;
        // Roles of older servers may write there.
        let public = "DO $$ BEGIN IF to_regnamespace('public') IS NOT NULL AND pg_has_role((SELECT nspowner FROM \
                      pg_namespace WHERE nspname = 'public'), 'USAGE') THEN REVOKE ALL ON SCHEMA public FROM PUBLIC; \
                      END IF; END $$";
        raw_sql(public).execute(&mut *tx).await.map_err(|e| failed(&e))?;
        let first = "INSERT INTO autopack.run_server VALUES (1, $1, $2, \
                     sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))) \
                     ON CONFLICT (id) DO NOTHING";
        let first = query(first).bind(FORMAT).bind(&self.control.cluster);
        first.execute(&mut *tx).await.map_err(|e| failed(&e))?;
        let row = query("SELECT format, cluster, secret FROM autopack.run_server").fetch_one(&mut *tx).await;
        let row = row.map_err(|e| failed(&e))?;
        let (format, cluster): (i32, String) =
            (row.try_get(0).map_err(|e| failed(&e))?, row.try_get(1).map_err(|e| failed(&e))?);
        let secret: Vec<u8> = row.try_get(2).map_err(|e| failed(&e))?;
        if format != FORMAT {
            return Err(RunDataError::Unsafe(format!("its registry has form {format}: use a newer autopack")));
        }
        if cluster != self.control.cluster {
            let why = format!("it keeps the data of another control store ({cluster}): make another database for runs");
            return Err(RunDataError::Unsafe(why));
        }
        tx.commit().await.map_err(|e| failed(&e))?;
        Ok(Key::new(secret))
    }
}

/// Databases of the server that belong to nobody of ours and that any role may connect to.
async fn tell_of_others(link: &mut PgConnection) -> RunDataResult<()> {
    let sql = "SELECT datname::text FROM pg_database WHERE datallowconn AND datname <> current_database() \
               AND datname !~ '^ap_run_[0-9a-f]{16}$' AND has_database_privilege('public', oid, 'CONNECT') ORDER BY 1";
    let others: Vec<String> = query_scalar(sql).fetch_all(link).await.map_err(|e| failed(&e))?;
    for database in others {
        tracing::warn!(
            database,
            "runs can connect to another database of their server: REVOKE CONNECT ON DATABASE ... FROM PUBLIC there"
        );
    }
    Ok(())
}
