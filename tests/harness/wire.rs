//! A wire between a client and a server that can be held: both sides stay connected, and nothing arrives. One may hold
//! itself in the middle of what a client sends, or have a server say something else than it does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use autopack_shared::runtime::process::{OnError, Tasks};

/// A port that leads to another one, for as long as the test's runtime lives.
pub(crate) struct Wire {
    port: u16,
    held: watch::Sender<bool>,
    sent: Arc<Sent>,
    _tasks: Tasks,
}

/// Bytes from clients, and how many of them pass before nothing does any more.
struct Sent {
    bytes: AtomicU64,
    limit: AtomicU64,
}

/// What a server says, and what its clients hear in its place: as long as that.
type Instead = Option<(Vec<u8>, Vec<u8>)>;

impl Wire {
    /// Listens, and passes everything on.
    pub(crate) async fn to(server: u16) -> Self {
        Self::saying(server, None).await
    }

    /// The same, where clients hear something else in the place of what the server says.
    pub(crate) async fn instead(server: u16, said: &[u8], heard: &[u8]) -> Self {
        assert_eq!(said.len(), heard.len());
        Self::saying(server, Some((said.to_vec(), heard.to_vec()))).await
    }

    async fn saying(server: u16, instead: Instead) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (held, tasks) = (watch::Sender::new(false), Tasks::new());
        let sent = Arc::new(Sent { bytes: AtomicU64::new(0), limit: AtomicU64::new(u64::MAX) });
        let serving = serve((listener, server), held.clone(), sent.clone(), instead, tasks.clone());
        tasks.spawn("wire", OnError::Log, serving);
        Self { port, held, sent, _tasks: tasks }
    }

    /// Where clients ask.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        vec![format!("http://127.0.0.1:{}", self.port)]
    }

    /// The port where they do.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing through any more.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Holds itself once clients have sent so many bytes more.
    pub(crate) fn hold_after(&self, bytes: u64) {
        self.sent.limit.store(self.sent.bytes.load(Ordering::SeqCst) + bytes, Ordering::SeqCst);
    }

    /// Whether nothing gets through.
    pub(crate) fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Lets everything through again, also what was held.
    pub(crate) fn release(&self) {
        self.sent.limit.store(u64::MAX, Ordering::SeqCst);
        self.held.send_replace(false);
    }
}

async fn serve(
    (listener, server): (TcpListener, u16),
    gate: watch::Sender<bool>,
    sent: Arc<Sent>,
    instead: Instead,
    tasks: Tasks,
) -> io::Result<()> {
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(("127.0.0.1", server)).await?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let (gate_there, sent, instead) = (gate.clone(), sent.clone(), instead.clone());
        let there = pass(near_in, far_out, gate.subscribe(), move |bytes| {
            let all = sent.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst) + bytes.len() as u64;
            if all > sent.limit.load(Ordering::SeqCst) {
                gate_there.send_replace(true);
            }
        });
        let back = pass(far_in, near_out, gate.subscribe(), move |bytes| {
            let Some((said, heard)) = &instead else { return };
            while let Some(at) = bytes.windows(said.len()).position(|part| part == said) {
                bytes[at..at + heard.len()].copy_from_slice(heard);
            }
        });
        tasks.spawn("there", OnError::Log, there);
        tasks.spawn("back", OnError::Log, back);
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut held: watch::Receiver<bool>,
    mut sees: impl FnMut(&mut [u8]),
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        sees(&mut bytes[..count]);
        if held.wait_for(|held| !held).await.is_err() || count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count]).await?;
    }
}
