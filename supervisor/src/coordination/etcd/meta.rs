//! Whether this is an etcd we can use, and ours: its version, and the incarnation that stands in it. A store that was
//! restored, or another cluster below the same prefix, must not act on the liveness that is kept there.

use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};

use super::config::StoreIdentity;
use super::keys::{Keys, Meta, parsed, written};
use super::link::{Link, found};
use crate::coordination::CoordinationError;

/// The incarnation as it stands in etcd: every acquisition compares it, byte by byte.
#[derive(Debug, Clone)]
pub(super) struct Incarnation {
    key: String,
    mine: Meta,
    value: Vec<u8>,
}

impl Incarnation {
    /// Asks for the version and for the incarnation; writes ours where there is none yet.
    pub(super) async fn claim(link: &Link, keys: &Keys, store: &StoreIdentity) -> Result<Self, CoordinationError> {
        let version = link.version().await?;
        if !new_enough(&version) {
            return Err(CoordinationError::TooOld { endpoints: link.endpoints().to_owned(), found: version });
        }
        let mine = Meta { incarnation: store.incarnation, cluster: store.cluster.clone() };
        let key = keys.incarnation();
        let value = written(&key, &mine)?;
        let first = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), value.clone(), None)])
            .or_else([TxnOp::get(key.as_str(), None)]);
        let answer = link.txn(first).await?;
        let mut claimed = Self { key, mine, value };
        if !answer.succeeded() {
            let stands = found(&answer).pop().flatten();
            claimed.check(link, stands.as_ref())?;
            // As it stands there, whatever the order of its fields.
            claimed.value = stands.map(|kv| kv.value().to_vec()).unwrap_or_default();
        }
        Ok(claimed)
    }

    /// The key, for reads beside others.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The guard of an acquisition.
    pub(super) fn guard(&self) -> Compare {
        Compare::value(self.key.as_str(), CompareOp::Equal, self.value.clone())
    }

    /// Refuses anything but ours.
    pub(super) fn check(&self, link: &Link, stands: Option<&KeyValue>) -> Result<(), CoordinationError> {
        let foreign = |reason, found: String, hint| {
            let (endpoints, key) = (link.endpoints().to_owned(), self.key.clone());
            Err(CoordinationError::Foreign { endpoints, key, found, reason, hint })
        };
        let ours = format!("incarnation {} of {}", self.mine.incarnation, self.mine.cluster);
        let Some(stands) = stands else {
            let hint =
                "it was taken away while supervisors ran: stop them all, find out who did that, start them again";
            return foreign("unsafe_config", format!("is gone; this is {ours}"), hint);
        };
        let stands: Meta = parsed(&self.key, stands.value())?;
        if stands.cluster != self.mine.cluster {
            let hint = "another cluster uses this prefix: give each an etcd.cluster_id of its own; if the other one is \
                        gone for good, delete everything below the prefix";
            return foreign("cluster_mismatch", format!("says {}; this is {ours}", stands.cluster), hint);
        }
        if stands.incarnation != self.mine.incarnation {
            let hint = "the store or etcd was restored from an older state: stop every supervisor, make sure that the \
                        store is the one to go on with, then autopack admin new-incarnation";
            return foreign("store_restored", format!("says incarnation {}; this is {ours}", stands.incarnation), hint);
        }
        Ok(())
    }
}

/// What stands in etcd for whoever is to raise the incarnation there.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The incarnation; none where nobody ever claimed the prefix.
    pub incarnation: Option<u32>,
    /// The supervisors that are alive.
    pub alive: Vec<String>,
    value: Option<Vec<u8>>,
}

impl Standing {
    /// Reads it; refuses a prefix that is another cluster's.
    pub(super) async fn read(link: &Link, keys: &Keys, store: &StoreIdentity) -> Result<Self, CoordinationError> {
        let key = keys.incarnation();
        let mut alive: Vec<String> = Vec::new();
        for found in link.list(&keys.supervisors()).await? {
            let name = found.key_str().unwrap_or_default();
            alive.push(name.trim_start_matches(&keys.supervisors()).to_owned());
        }
        let Some(stands) = link.get(&key).await? else {
            return Ok(Self { incarnation: None, alive, value: None });
        };
        let meta: Meta = parsed(&key, stands.value())?;
        if meta.cluster != store.cluster {
            let found = format!("says {}; this is {}", meta.cluster, store.cluster);
            let hint = "another cluster uses this prefix: name ours by --cluster-id";
            let endpoints = link.endpoints().to_owned();
            return Err(CoordinationError::Foreign { endpoints, key, found, reason: "cluster_mismatch", hint });
        }
        Ok(Self { incarnation: Some(meta.incarnation), alive, value: Some(stands.value().to_vec()) })
    }

    /// Writes the incarnation of the store, if all is as it was read and nobody directs; whether it was.
    pub(super) async fn raise(
        &self,
        link: &Link,
        keys: &Keys,
        store: &StoreIdentity,
    ) -> Result<bool, CoordinationError> {
        let key = keys.incarnation();
        let value = written(&key, &Meta { incarnation: store.incarnation, cluster: store.cluster.clone() })?;
        let same = match &self.value {
            Some(value) => Compare::value(key.as_str(), CompareOp::Equal, value.clone()),
            None => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        };
        let nobody = Compare::create_revision(keys.director(), CompareOp::Equal, 0);
        let put = TxnOp::put(key.as_str(), value, None);
        Ok(link.txn(Txn::new().when([same, nobody]).and_then([put])).await?.succeeded())
    }
}

/// Whether a version is 3.4 or later. One that cannot be read is taken for new.
fn new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => (major, minor) >= (3, 4),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_3_4_are_too_old() {
        for (version, enough) in [
            ("3.4.23", true),
            ("3.5.0-rc.1", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("2.3.8", false),
            ("git", true),
        ] {
            assert_eq!(new_enough(version), enough, "{version}");
        }
    }
}
