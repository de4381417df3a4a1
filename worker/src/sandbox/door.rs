//! The way from a sandbox to the server for data of runs: a socket by its path inside, whose bytes the worker carries to
//! the server that the supervisor named and to no other.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::config::Sandbox;
use super::spec::AP;

/// The folder inside.
const NAME: &str = "pg";

/// What clients of `PostgreSQL` look for in it.
const SOCKET: &str = ".s.PGSQL.5432";

/// Connections at once.
const CONNECTIONS: usize = 64;

/// How long the server may take to answer.
const CONNECT: Duration = Duration::from_secs(10);

/// An open way to one server; closed when this is dropped.
#[derive(Debug)]
pub struct DatabaseDoor {
    folder: tempfile::TempDir,
    url: String,
    _carriers: JoinSet<()>,
}

impl DatabaseDoor {
    /// Opens a way to the server that a URL names.
    ///
    /// # Errors
    /// When the URL names no server, or the socket cannot be made.
    pub fn open(sandbox: &Sandbox, url: &str) -> io::Result<Self> {
        let (server, inside) = through(url)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the URL of the run's data names no server"))?;
        let folder = tempfile::Builder::new().prefix("pg-").tempdir_in(&sandbox.config().folder)?;
        let listener = listen(folder.path(), SOCKET)?;
        let mut carriers = JoinSet::new();
        carriers.spawn(serve(listener, server));
        Ok(Self { folder, url: inside, _carriers: carriers })
    }

    /// The URL inside.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder with the socket, and its name below `/run/ap`.
    pub(super) fn mounted(&self) -> (PathBuf, String) {
        (self.folder.path().to_owned(), NAME.to_owned())
    }
}

/// Listens on a socket that everybody who sees the folder may use, however long its path is.
pub(crate) fn listen(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let held = std::fs::File::open(folder)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", held.as_raw_fd()))?;
    std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o666))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(listener)
}

async fn serve(listener: UnixListener, server: String) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let server = server.clone();
                    open.spawn(async move {
                        carry(client, &server).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to a run's data was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_ended) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

async fn carry(mut client: UnixStream, server: &str) {
    match tokio::time::timeout(CONNECT, TcpStream::connect(server)).await {
        Ok(Ok(mut server)) => {
            // Either side may close as it likes.
            let _closed = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Ok(Err(error)) => tracing::warn!(%error, "the server for data of runs cannot be reached"),
        Err(_) => tracing::warn!("the server for data of runs does not answer"),
    }
}

/// The server of a URL as `host:port`, and the URL by which it is reached inside.
fn through(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    if host.is_empty() || host.starts_with('%') {
        return None;
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let server = if has_port { host.to_owned() } else { format!("{host}:5432") };
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    let socket = format!("{AP}/{NAME}").replace('/', "%2F");
    // Encryption is between the worker and the server, if at all; a socket by its path has none.
    let query = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("ssl"));
    let query: Vec<&str> = query.collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    Some((server, format!("{scheme}://{login}{socket}/{database}{query}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_becomes_one_through_the_door() {
        let cases = [
            ("postgres://u:p@db:6432/runs", "db:6432", "postgres://u:p@%2Frun%2Fap%2Fpg/runs"),
            ("postgresql://u@db/r?sslmode=require&options=x", "db:5432", "postgresql://u@%2Frun%2Fap%2Fpg/r?options=x"),
            ("postgres://u:p%40q@[::1]:5433/r?sslmode=disable", "[::1]:5433", "postgres://u:p%40q@%2Frun%2Fap%2Fpg/r"),
        ];
        for (url, server, inside) in cases {
            assert_eq!(through(url), Some((server.to_owned(), inside.to_owned())), "{url}");
        }
        assert_eq!(through("postgres:///r"), None);
        assert_eq!(through("nothing"), None);
    }
}
