//! What the database server can do at most, with nothing of ours in the way; `autopack bench` measures us against it.

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, query, query_scalar};
use tokio::task::JoinSet;

use super::error::{away, failed};
use super::{PostgresConfig, TURN};
use crate::store::{StoreError, StoreResult};

/// Clients of a server that commit, and nothing else.
#[derive(Debug)]
pub struct PostgresFloor {
    pool: PgPool,
}

impl PostgresFloor {
    /// Connects, with the settings that a store connects with, and makes a table to write to.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be reached.
    pub async fn open(config: &PostgresConfig) -> StoreResult<Self> {
        let pool = PgPoolOptions::new().max_connections(config.connections).acquire_timeout(TURN);
        let pool = pool.connect_with(config.options()?).await.map_err(|e| failed(&e, None))?;
        let table = "CREATE TABLE IF NOT EXISTS public.floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, doc text NOT NULL)";
        query(table).execute(&pool).await.map_err(|e| failed(&e, None))?;
        Ok(Self { pool })
    }

    /// Commits rows of 200 bytes: each client `each` of them, one after the other, one statement a commit.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn commits(&self, clients: u32, each: u32) -> StoreResult<()> {
        let mut work = JoinSet::new();
        for _ in 0..clients {
            let pool = self.pool.clone();
            work.spawn(async move {
                let mut link = pool.acquire().await?;
                for _ in 0..each {
                    let row = query("INSERT INTO public.floor (doc) VALUES (repeat('x', 200))");
                    row.execute(&mut *link).await?;
                }
                Ok::<(), sqlx::Error>(())
            });
        }
        while let Some(done) = work.join_next().await {
            done.map_err(|_| ended())?.map_err(|e| failed(&e, None))?;
        }
        Ok(())
    }

    /// How many transactions have written anything on this server, so far, in all of its databases.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn writers(&self) -> StoreResult<i64> {
        let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        query_scalar(sql).fetch_one(&self.pool).await.map_err(|e| failed(&e, None))
    }

    /// Makes a database beside this one. The name is the caller's own word, never a stranger's.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn make_database(&self, name: &'static str) -> StoreResult<()> {
        let sql = format!("CREATE DATABASE {name}");
        query(AssertSqlSafe(sql)).execute(&self.pool).await.map_err(|e| failed(&e, None))?;
        Ok(())
    }

    /// Disconnects.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn ended() -> StoreError {
    away("a client of the floor ended early".to_owned(), "try again")
}
