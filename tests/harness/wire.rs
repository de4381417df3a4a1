//! A wire between a client and a server that can be held: both sides stay connected, and nothing arrives.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use autopack_shared::runtime::process::{OnError, Tasks};

/// A port that leads to another one, for as long as the test's runtime lives.
pub(crate) struct Wire {
    port: u16,
    held: watch::Sender<bool>,
    _tasks: Tasks,
}

impl Wire {
    /// Listens, and passes everything on.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (held, tasks) = (watch::Sender::new(false), Tasks::new());
        let serving = serve(listener, server, held.clone(), tasks.clone());
        tasks.spawn("wire", OnError::Log, serving);
        Self { port, held, _tasks: tasks }
    }

    /// Where clients ask.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        vec![format!("http://127.0.0.1:{}", self.port)]
    }

    /// Lets nothing through any more.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets everything through again, also what was held.
    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }
}

async fn serve(listener: TcpListener, server: u16, gate: watch::Sender<bool>, tasks: Tasks) -> io::Result<()> {
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(("127.0.0.1", server)).await?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tasks.spawn("there", OnError::Log, pass(near_in, far_out, gate.subscribe()));
        tasks.spawn("back", OnError::Log, pass(far_in, near_out, gate.subscribe()));
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut held: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if held.wait_for(|held| !held).await.is_err() || count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count]).await?;
    }
}
