//! The way out of a sandbox: a proxy in the worker, on a socket that only one job sees. It connects to hosts that the
//! project asked for and the operator allows, and carries questions to the model's provider, to which it adds the key: what
//! runs inside never holds one. Every try is noted; everything that is not allowed is refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use autopack_shared::domain::egress::HostRule;
use autopack_shared::domain::usage::{Allowance, Usage};

use crate::process::output::Output;
use crate::providers::Provider;
use crate::sandbox::{EGRESS_PORT, Sandbox, listen};

mod address;
mod body;
mod forward;
mod ledger;
mod route;
mod serve;
mod spent;
mod tunnel;
mod usage;

pub use ledger::{Contact, Outcome};
pub use route::Route;
pub use spent::Seen;

use ledger::Ledger;
use spent::Spent;

/// The socket in its folder.
const SOCKET: &str = "s";

/// Bounds of one way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes sent.
    pub up: u64,
    /// Bytes received.
    pub down: u64,
    /// Connections at once; more wait.
    pub connections: usize,
    /// Bytes of the head of one request.
    pub head: usize,
    /// How long a connection may stand without a byte.
    pub idle: Duration,
    /// How long a connection may stand.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            up: 256 << 20,
            down: 1 << 30,
            connections: 64,
            head: 64 << 10,
            idle: Duration::from_secs(600),
            total: Duration::from_secs(7200),
        }
    }
}

/// Where a way out leads.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// Hosts.
    pub rules: Vec<HostRule>,
    /// The model's provider.
    pub route: Option<Route>,
    /// Addresses that no rule opens, as `host:port`: what the worker itself talks to.
    pub never: Vec<String>,
    /// What models may be asked for.
    pub allowance: Allowance,
    /// Bounds.
    pub limits: Limits,
}

/// What all connections of one way out share.
#[derive(Debug)]
struct Shared {
    rules: Vec<HostRule>,
    route: Option<Route>,
    never: Vec<std::net::SocketAddr>,
    ledger: Arc<Ledger>,
    spent: Arc<Spent>,
    client: reqwest::Client,
}

/// An open way out; closed when this is dropped.
#[derive(Debug)]
pub struct Egress {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl Egress {
    /// Opens a way out of sandboxes. What is refused and allowed stands in the transcript that `output` records.
    ///
    /// # Errors
    /// When the socket or the client cannot be made.
    pub async fn open(sandbox: &Sandbox, ways: Ways, output: Output) -> io::Result<Self> {
        Self::open_in(&sandbox.config().folder, ways, output).await
    }

    async fn open_in(folder: &Path, ways: Ways, output: Output) -> io::Result<Self> {
        let Ways { rules, route, never, allowance, limits } = ways;
        let folder = tempfile::Builder::new().prefix("egress-").tempdir_in(folder)?;
        let listener = listen(folder.path(), SOCKET)?;
        let model = route.as_ref().and_then(|route| route.model.clone());
        let shared = Arc::new(Shared {
            never: address::resolve_all(&never).await,
            rules,
            route,
            ledger: Arc::new(Ledger::new(limits, output)),
            spent: Arc::new(Spent::new(allowance, model)),
            client: forward::client().map_err(io::Error::other)?,
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve::serve(listener, shared.clone()));
        Ok(Self { folder, shared, _serving: serving })
    }

    /// The socket, outside.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// What tells programs inside where the way out is.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let proxy = format!("http://127.0.0.1:{EGRESS_PORT}");
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"];
        let mut all: Vec<(String, String)> = names.iter().map(|name| ((*name).to_owned(), proxy.clone())).collect();
        for name in ["NO_PROXY", "no_proxy"] {
            all.push((name.to_owned(), "127.0.0.1,localhost".to_owned()));
        }
        // Programs in JavaScript look at them only when they are told to.
        all.push(("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned()));
        all
    }

    /// The model's provider as it is known inside: another address, and a key that opens nothing.
    #[must_use]
    pub fn shown(&self) -> Option<Provider> {
        self.shared.route.as_ref().map(Route::shown)
    }

    /// What models were asked for, as it went over the wire.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.spent.usage()
    }

    /// How the provider was last seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.spent.seen()
    }

    /// Every place that was tried.
    #[must_use]
    pub fn contacts(&self) -> Vec<Contact> {
        self.shared.ledger.contacts()
    }
}

#[cfg(test)]
mod tests;
