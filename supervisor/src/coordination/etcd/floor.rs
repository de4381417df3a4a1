//! What etcd can do at most, with nothing of ours in the way; `autopack bench` measures us against it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_client::{Client, Compare, CompareOp, Error, PutOptions, Txn, TxnOp};
use tokio::task::JoinSet;

use crate::coordination::CoordinationError;

/// Seconds that what is locked lives, if nobody ends it before.
const TTL: i64 = 60;

/// Clients of an etcd that take locks, and nothing else.
#[derive(Clone)]
pub struct EtcdFloor {
    client: Client,
    lease: i64,
    next: Arc<AtomicU64>,
}

impl std::fmt::Debug for EtcdFloor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdFloor").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl EtcdFloor {
    /// Connects, and takes a lease for the keys to hang on.
    ///
    /// # Errors
    /// [`CoordinationError::Unavailable`] when nobody answers.
    pub async fn connect(endpoints: &[String]) -> Result<Self, CoordinationError> {
        let mut client = Client::connect(endpoints, None).await.map_err(away)?;
        let lease = client.lease_grant(TTL, None).await.map_err(away)?.id();
        Ok(Self { client, lease, next: Arc::new(AtomicU64::new(0)) })
    }

    /// Takes locks as a grant does, two keys in one guarded transaction: each client `each` times, one after the other.
    ///
    /// # Errors
    /// [`CoordinationError::Unavailable`] when a transaction fails.
    pub async fn locks(&self, clients: u32, each: u32) -> Result<(), CoordinationError> {
        let mut work = JoinSet::new();
        for _ in 0..clients {
            let mut floor = self.clone();
            work.spawn(async move {
                for _ in 0..each {
                    floor.lock().await?;
                }
                Ok::<(), Error>(())
            });
        }
        while let Some(done) = work.join_next().await {
            let ended = |_| CoordinationError::Unavailable("a client of the floor ended early".to_owned());
            done.map_err(ended)?.map_err(away)?;
        }
        Ok(())
    }

    async fn lock(&mut self) -> Result<(), Error> {
        let name = self.next.fetch_add(1, Ordering::Relaxed);
        let keys = [format!("/floor/run/{name}"), format!("/floor/ws/{name}")];
        let free = keys.iter().map(|key| Compare::create_revision(key.as_str(), CompareOp::Equal, 0));
        let put = |key: &String| TxnOp::put(key.as_str(), [b'x'; 200], Some(PutOptions::new().with_lease(self.lease)));
        let txn = Txn::new().when(free.collect::<Vec<_>>()).and_then(keys.iter().map(put).collect::<Vec<_>>());
        self.client.txn(txn).await.map(drop)
    }
}

fn away(error: Error) -> CoordinationError {
    CoordinationError::Unavailable(format!("etcd: {error}"))
}
