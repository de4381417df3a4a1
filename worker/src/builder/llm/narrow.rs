//! The way to one provider: a socket in a folder of our own that leads to its address and nowhere else, and over which
//! only so many bytes come back. The client library reads an answer whole, however long it is; here it ends.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(15);

/// A way, ready to be used.
pub(super) struct Narrow {
    // Its folder goes with it; only its owner may enter.
    _folder: TempDir,
    socket: PathBuf,
    listener: UnixListener,
    host: String,
    port: u16,
    most: u64,
    fault: Mutex<Option<String>>,
    reached: AtomicBool,
}

impl Narrow {
    pub(super) fn open(host: &str, port: u16, most: u64) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("ap").tempdir()?;
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket)?;
        // The brackets belong to the spelling in an address, not to the name.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            _folder: folder,
            socket,
            listener,
            host,
            port,
            most,
            fault: Mutex::default(),
            reached: AtomicBool::new(false),
        })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// What stood in the way, where something did.
    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there was anybody at the other end.
    pub(super) fn reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }

    /// Carries one connection after the other, for as long as it is polled.
    pub(super) async fn carry(&self) -> io::Error {
        loop {
            let near = match self.listener.accept().await {
                Ok((near, _)) => near,
                Err(error) => return error,
            };
            if let Err(why) = self.one(near).await {
                *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
        }
    }

    async fn one(&self, mut near: UnixStream) -> Result<(), String> {
        let place = format!("{}:{}", self.host, self.port);
        let far = tokio::time::timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port)));
        let mut far = match far.await {
            Ok(Ok(far)) => far,
            Ok(Err(error)) => return Err(format!("{place} cannot be reached: {error}")),
            Err(_) => return Err(format!("{place} cannot be reached within {} s", CONNECT.as_secs())),
        };
        self.reached.store(true, Ordering::SeqCst);
        let (mut near_read, mut near_write) = near.split();
        let (mut far_read, mut far_write) = far.split();
        let there = async {
            let _broken = copy(&mut near_read, &mut far_write).await;
            let _gone = far_write.shutdown().await;
            // The answer may still be on its way.
            std::future::pending::<()>().await;
        };
        let back = async {
            let mut counted = (&mut far_read).take(self.most);
            let _broken = copy(&mut counted, &mut near_write).await;
            counted.limit() == 0
        };
        tokio::select! {
            () = there => Ok(()),
            cut = back => if cut { Err(format!("the answer of {place} is longer than {} bytes", self.most)) } else { Ok(()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_so_much_comes_back() {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let narrow = Narrow::open("127.0.0.1", far.local_addr().unwrap().port(), 100_000).unwrap();
        let server = async {
            let (mut stream, _) = far.accept().await.unwrap();
            let mut sent = 0u64;
            while stream.write_all(&[7; 4096]).await.is_ok() {
                sent += 4096;
            }
            sent
        };
        let client = async {
            let mut stream = UnixStream::connect(narrow.socket()).await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            got.len()
        };
        let (got, _) = tokio::select! {
            both = async { tokio::join!(client, server) } => both,
            error = narrow.carry() => panic!("{error}"),
        };
        assert_eq!(got, 100_000);
        assert!(narrow.fault().unwrap().contains("longer than 100000 bytes") && narrow.reached());
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let narrow = Narrow::open("127.0.0.1", port, 10).unwrap();
        let client = async {
            let mut stream = UnixStream::connect(narrow.socket()).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap_or(0)
        };
        tokio::select! {
            got = client => assert_eq!(got, 0),
            error = narrow.carry() => panic!("{error}"),
        }
        // The last of it is said after the client has seen the end.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            error = narrow.carry() => panic!("{error}"),
        }
        assert!(narrow.fault().unwrap().contains("cannot be reached") && !narrow.reached());
    }
}
