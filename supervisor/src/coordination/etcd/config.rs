//! How an etcd is reached, and what is refused before it is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::coordination::CoordinationError;
use crate::coordination::timers::Timers;

/// An etcd and our place in it.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// Every member that can be asked: `http://host:2379`, ...
    pub endpoints: Vec<String>,
    /// Names the cluster; all keys lie below `/autopack/v1/<cluster_id>`.
    pub cluster_id: String,
    /// This process.
    pub replica: Replica,
    /// The store whose liveness is kept there.
    pub store: StoreIdentity,
    /// Who asks, where etcd wants to know.
    pub user: Option<EtcdUser>,
    /// How it is encrypted; `https` endpoints need it.
    pub tls: Option<EtcdTls>,
    /// Times.
    pub timers: Timers,
}

/// One supervisor process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Unique among the live ones.
    pub id: String,
    /// Where the others and the workers reach it.
    pub addr: String,
}

/// Which store, and which life of it (`coordination.md` D2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Rises when the store is restored or made anew.
    pub incarnation: u32,
    /// The store's own name of itself: PostgreSQL's system identifier or the cluster's id.
    pub cluster: String,
}

/// A user of etcd. The password itself is in no setting and no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: String,
    /// A file with the password.
    pub password_file: PathBuf,
}

/// Files of a TLS connection, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// Who signs etcd's certificate.
    pub ca_file: PathBuf,
    /// Our own certificate and its key, where etcd asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name in etcd's certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

impl EtcdConfig {
    /// Checks what can be checked without asking anybody.
    pub(super) fn checked(&self) -> Result<(), CoordinationError> {
        self.timers.clone().checked()?;
        let setting = |what: &str, why: &str| {
            Err(CoordinationError::Setting { what: format!("etcd.{what}"), why: why.to_owned() })
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.endpoints.is_empty() {
            return setting("endpoints", "at least one is needed, such as http://127.0.0.1:2379");
        }
        // Endpoints stand in messages; nothing secret may stand in an endpoint.
        if self.endpoints.iter().any(|endpoint| endpoint.contains('@')) {
            return setting("endpoints", "no user or password here: see etcd.user and etcd.password_file");
        }
        if self.tls.is_none() && self.endpoints.iter().any(|endpoint| endpoint.starts_with("https:")) {
            return setting("endpoints", "https needs etcd.ca_file");
        }
        if self.cluster_id.is_empty() || self.cluster_id.len() > 63 || !self.cluster_id.chars().all(plain) {
            return setting("cluster_id", "1 to 63 letters, digits, '.', '_' and '-'");
        }
        if self.replica.id.is_empty() || self.replica.id.len() > 63 || !self.replica.id.chars().all(plain) {
            return setting("replica", "1 to 63 letters, digits, '.', '_' and '-'");
        }
        Ok(())
    }

    /// The endpoints as they stand in messages.
    pub(super) fn shown(&self) -> String {
        self.endpoints.join(", ")
    }

    /// What the client is told (`coordination.md` 3.2, rule 8).
    pub(super) fn options(&self) -> Result<ConnectOptions, CoordinationError> {
        let beat = Duration::from_secs(3);
        let mut options = ConnectOptions::new()
            .with_keep_alive(beat, beat)
            .with_keep_alive_while_idle(true)
            .with_timeout(Duration::from_secs(5))
            .with_connect_timeout(Duration::from_secs(1))
            .with_auto_token_refresh(true)
            .with_require_leader(true);
        if let Some(user) = &self.user {
            let password = String::from_utf8_lossy(&read(&user.password_file)?).trim_end_matches('\n').to_owned();
            options = options.with_user(user.name.clone(), password);
        }
        if let Some(tls) = &self.tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&tls.ca_file)?));
            if let Some((certificate, key)) = &tls.client {
                with = with.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            if let Some(name) = &tls.server_name {
                with = with.domain_name(name.clone());
            }
            options = options.with_tls(with);
        }
        Ok(options)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CoordinationError> {
    fs::read(path).map_err(|error| CoordinationError::of(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut EtcdConfig)) -> String {
        let mut config = EtcdConfig {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            cluster_id: "c-1".to_owned(),
            replica: Replica { id: "r-1".to_owned(), addr: "127.0.0.1:7000".to_owned() },
            store: StoreIdentity { incarnation: 1, cluster: "store".to_owned() },
            user: None,
            tls: None,
            timers: Timers::default(),
        };
        config.checked().unwrap();
        change(&mut config);
        config.checked().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_is_refused_and_no_secret_is_repeated() {
        assert!(refusal(|c| c.endpoints.clear()).contains("etcd.endpoints"));
        assert!(refusal(|c| c.endpoints[0] = "https://e:2379".to_owned()).contains("etcd.ca_file"));
        assert!(refusal(|c| c.cluster_id = "a/b".to_owned()).contains("etcd.cluster_id"));
        assert!(refusal(|c| c.replica.id = String::new()).contains("etcd.replica"));
        assert!(refusal(|c| c.timers.margin = Duration::ZERO).contains("timers"));
        let secret = refusal(|c| c.endpoints[0] = "http://root:hunter2@e:2379".to_owned());
        assert!(!secret.contains("hunter2") && secret.contains("etcd.password_file"), "{secret}");
    }
}
