//! Calls to etcd: each with a deadline, and repeated at once where a member is away, since the balanced channel does not
//! look for another one within a call. Everything that is asked here may be asked twice: writes are guarded, and a lease
//! too many runs out.

use std::future::Future;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse,
    WatchOptions, WatchStream,
};
use tokio::time::timeout;

use super::config::EtcdConfig;
use crate::coordination::CoordinationError;
use crate::coordination::timers::Timers;

/// Tries of one call: the first, and six at once after it.
const TRIES: usize = 7;

/// gRPC's numbers, as the client hands them out.
mod code {
    /// What may be gone at the next try: cancelled, unknown (a broken connection), deadline, failed precondition ("not
    /// leader"), internal (of the transport), unavailable.
    pub(super) const PASSING: &[i32] = &[1, 2, 4, 9, 13, 14];
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const FULL: i32 = 8;
    /// Invalid argument (a wrong password), permission denied, unauthenticated.
    pub(super) const REFUSED: &[i32] = &[3, 7, 16];
}

/// A connection to all members.
pub(super) struct Link {
    client: Client,
    endpoints: String,
    request: Duration,
    patience: Duration,
}

impl Link {
    /// Connects. Without a user, nothing is asked yet.
    pub(super) async fn connect(config: &EtcdConfig) -> Result<Self, CoordinationError> {
        let options = config.options()?;
        let (Timers { request, patience, .. }, endpoints) = (config.timers.clone(), config.shown());
        let ask = || Client::connect(config.endpoints.clone(), Some(options.clone()));
        let client = repeat((request, patience), &endpoints, ask).await?;
        Ok(Self { client, endpoints, request, patience })
    }

    /// The endpoints as they stand in messages.
    pub(super) fn endpoints(&self) -> &str {
        &self.endpoints
    }

    async fn call<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, CoordinationError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        repeat((self.request, self.patience), &self.endpoints, || ask(self.client.clone())).await
    }

    /// The version that one member says it is of.
    pub(super) async fn version(&self) -> Result<String, CoordinationError> {
        self.call(|mut client| async move { Ok(client.status().await?.version().to_owned()) }).await
    }

    /// A transaction.
    pub(super) async fn txn(&self, txn: Txn) -> Result<TxnResponse, CoordinationError> {
        self.call(|mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        })
        .await
    }

    /// A linearizable read of some keys at one moment, and the revision of that moment.
    pub(super) async fn read(&self, keys: &[String]) -> Result<(i64, Vec<Option<KeyValue>>), CoordinationError> {
        let gets: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect();
        let answer = self.txn(Txn::new().and_then(gets)).await?;
        Ok((revision(&answer), found(&answer)))
    }

    /// A linearizable read of one key.
    pub(super) async fn get(&self, key: &str) -> Result<Option<KeyValue>, CoordinationError> {
        let (_, mut found) = self.read(&[key.to_owned()]).await?;
        Ok(found.pop().flatten())
    }

    /// Every key below a prefix, in order.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, CoordinationError> {
        let ask = |mut client: Client| async move {
            client.get(prefix, Some(GetOptions::new().with_prefix())).await as Result<GetResponse, Error>
        };
        Ok(self.call(ask).await?.take_kvs())
    }

    /// The same without values.
    pub(super) async fn list_keys(&self, prefix: &str) -> Result<Vec<KeyValue>, CoordinationError> {
        let ask = |mut client: Client| async move {
            let options = GetOptions::new().with_prefix().with_keys_only();
            client.get(prefix, Some(options)).await as Result<GetResponse, Error>
        };
        Ok(self.call(ask).await?.take_kvs())
    }

    /// Deletes a key if it still is the one that was created then; false when it is not.
    pub(super) async fn delete(&self, key: &str, created: i64) -> Result<bool, CoordinationError> {
        let same = Compare::create_revision(key, CompareOp::Equal, created);
        let txn = Txn::new().when([same]).and_then([TxnOp::delete(key, None)]);
        Ok(self.txn(txn).await?.succeeded())
    }

    /// A new lease.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<i64, CoordinationError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        self.call(|mut client| async move { Ok(client.lease_grant(seconds, None).await?.id()) }).await
    }

    /// Renews a lease: one message, one answer. False when it is gone, as far as the member that was asked knows.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<bool, CoordinationError> {
        let ask = |mut client: Client| async move {
            match client.lease_keep_alive(lease).await {
                Ok(_) => Ok(true),
                // A TTL of 0 comes as this error. A stream that ends without an answer comes as another one.
                Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.call(ask).await
    }

    /// Ends a lease and every key that hangs on it; one that is gone already is no error.
    pub(super) async fn revoke(&self, lease: i64) -> Result<(), CoordinationError> {
        let ask = |mut client: Client| async move {
            match client.lease_revoke(lease).await {
                Ok(_) => Ok(()),
                Err(Error::GRpcStatus(status)) if i32::from(status.code()) == code::NOT_FOUND => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.call(ask).await
    }

    /// What a lease was given and what is left of it; none when it is gone.
    pub(super) async fn time_to_live(&self, lease: i64) -> Result<Option<(Duration, Duration)>, CoordinationError> {
        let answer = self.call(|mut client| async move { client.lease_time_to_live(lease, None).await }).await?;
        let seconds = |value: i64| u64::try_from(value).ok().map(Duration::from_secs);
        Ok(seconds(answer.granted_ttl()).zip(seconds(answer.ttl())))
    }

    /// Watches a key from a revision on.
    pub(super) async fn watch(&self, key: &str, from: i64) -> Result<WatchStream, CoordinationError> {
        let ask = |mut client: Client| async move {
            let options = WatchOptions::new().with_start_revision(from).with_progress_notify();
            client.watch(key, Some(options)).await
        };
        self.call(ask).await
    }
}

/// Asks until there is an answer, at most [`TRIES`] times and not longer than our patience.
async fn repeat<T, F>(
    (request, patience): (Duration, Duration),
    endpoints: &str,
    ask: impl Fn() -> F,
) -> Result<T, CoordinationError>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut last = format!("no answer within {} ms", patience.as_millis());
    let tries = async {
        for _ in 0..TRIES {
            match timeout(request, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if passes(&error) => last = told(&error),
                Ok(Err(error)) => return Err(refusal(endpoints, &error)),
                Err(_) => last = format!("no answer within {} ms", request.as_millis()),
            }
        }
        Err(None)
    };
    let answer = timeout(patience, tries).await.unwrap_or(Err(None));
    answer.map_err(|refused| {
        refused.unwrap_or_else(|| CoordinationError::Unavailable(format!("etcd at {endpoints}: {last}")))
    })
}

/// The number and the words of a status.
fn status(error: &Error) -> Option<(i32, &str)> {
    if let Error::GRpcStatus(status) = error { Some((i32::from(status.code()), status.message())) } else { None }
}

fn passes(error: &Error) -> bool {
    let broken =
        matches!(error, Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) | Error::EndpointError(_));
    broken || status(error).is_some_and(|(code, _)| code::PASSING.contains(&code))
}

/// What another try will not better.
fn refusal(endpoints: &str, error: &Error) -> Option<CoordinationError> {
    let what = format!("etcd at {endpoints}");
    let refused = status(error);
    Some(match refused {
        Some((code::FULL, _)) => CoordinationError::Full { path: what },
        Some((code, why)) if code::REFUSED.contains(&code) => CoordinationError::Setting { what, why: why.to_owned() },
        None if matches!(error, Error::InvalidArgs(_) | Error::InvalidUri(_)) => {
            CoordinationError::Setting { what: "etcd.endpoints".to_owned(), why: told(error) }
        }
        Some(_) | None => CoordinationError::Unavailable(format!("{what}: {}", told(error))),
    })
}

/// The short words of an error: a status prints its metadata, too.
fn told(error: &Error) -> String {
    status(error).map_or_else(|| error.to_string(), |(_, why)| why.to_owned())
}

/// The revision that an answer is of.
pub(super) fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, etcd_client::ResponseHeader::revision)
}

/// What the reads of a transaction found, one answer a read.
pub(super) fn found(answer: &TxnResponse) -> Vec<Option<KeyValue>> {
    let get = |response| if let TxnOpResponse::Get(get) = response { Some(get) } else { None };
    answer.op_responses().into_iter().filter_map(get).map(|mut get| get.take_kvs().pop()).collect()
}
