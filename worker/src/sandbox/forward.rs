//! The near end of the way out, in PID 1: listens on the loopback inside, where programs look for a proxy, and carries each
//! connection to the socket of the worker's proxy. It decides nothing and knows nothing that is not the builder's too.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::spec::EGRESS_SOCKET;

/// Connections at once; the worker has a bound of its own.
const CONNECTIONS: usize = 256;

/// Listens. What connects before [`carry`] waits.
pub(super) fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Carries connections on a thread of its own, for as long as this process lives.
pub(super) fn carry(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("egress".to_owned()).spawn(move || {
        runtime.block_on(async {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                serve(listener).await;
            }
        });
    })?;
    Ok(())
}

async fn serve(listener: tokio::net::TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => {
                    open.spawn(async move {
                        one(near).await;
                        drop(permit);
                    });
                }
                // Too many open files, say: who connects waits.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_ended) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

async fn one(mut near: TcpStream) {
    let Ok(mut far) = UnixStream::connect(EGRESS_SOCKET).await else { return };
    // Small pieces of a talk must not wait for one another.
    let _slower = near.set_nodelay(true);
    let _closed = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}
