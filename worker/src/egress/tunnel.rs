//! `CONNECT`: a tunnel to a host that a rule names, at an address that may be reached. Its bytes are counted and not looked
//! at: what is in them is between the program and the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::time::Instant;

use autopack_shared::domain::egress::{HostRule, host};

use super::ledger::{Ledger, Outcome, Way};
use super::{Shared, address};

/// A tunnel whose far end stands.
pub(super) struct Tunnel {
    near: OnUpgrade,
    far: TcpStream,
    place: String,
}

/// The host and the port of a target, in their one spelling; no target with anything else in it.
fn target(uri: &Uri) -> Option<(String, u16)> {
    let authority = uri.authority()?;
    if uri.scheme().is_some()
        || uri.path_and_query().is_some_and(|rest| rest.as_str() != "")
        || authority.as_str().contains('@')
    {
        return None;
    }
    let (_, port) =
        authority.as_str().rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((host(authority.host())?, port))
}

/// Opens the far end.
///
/// # Errors
/// The place and why it is not reached.
pub(super) async fn open(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Tunnel, (String, &'static str)> {
    let Some((host, port)) = target(request.uri()) else { return Err((request.uri().to_string(), "bad_target")) };
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match reach(shared, &host, port).await {
        Ok(far) => {
            shared.ledger.note(&place, Outcome::Allowed);
            Ok(Tunnel { near: hyper::upgrade::on(request), far, place })
        }
        Err(why) => Err((place, why)),
    }
}

/// Whether rules that stand for a connection let it lead to a private address; none where there is no such rule.
fn listed(rules: &[HostRule], host: &str, port: u16) -> Option<bool> {
    let mut known = rules.iter().filter(|rule| rule.matches(host, port)).map(HostRule::is_private).peekable();
    known.peek()?;
    Some(known.any(|private| private))
}

async fn reach(shared: &Shared, host: &str, port: u16) -> Result<TcpStream, &'static str> {
    let private = listed(&shared.rules, host, port).ok_or("not_listed")?;
    let found = address::resolve(host, port).await?;
    address::judge(&found, private, &shared.never)?;
    address::connect(&found, private).await
}

impl Tunnel {
    /// Carries bytes until either side ends, nothing comes for too long, or there were enough.
    pub(super) async fn carry(self, ledger: &Ledger) {
        let Ok(near) = self.near.await else { return };
        let (near_read, near_write) = split(TokioIo::new(near));
        let (far_read, far_write) = self.far.into_split();
        let ticks = AtomicU64::new(0);
        let place = &self.place;
        let ended = tokio::select! {
            ended = async {
                let both = tokio::try_join!(
                    copy((near_read, far_write), (ledger, Way::Up, place), &ticks),
                    copy((far_read, near_write), (ledger, Way::Down, place), &ticks),
                );
                both.err()
            } => ended,
            () = silence(&ticks, ledger.limits.idle) => Some("idle"),
        };
        if let Some(why) = ended {
            ledger.note(place, Outcome::Refused(why));
        }
    }
}

/// Copies to the end; an end of one direction is told to the other side.
async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    (mut from, mut to): (R, W),
    (ledger, way, place): (&Ledger, Way, &str),
    ticks: &AtomicU64,
) -> Result<(), &'static str> {
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        ticks.fetch_add(1, Ordering::Relaxed);
        if !ledger.spend(way, place, n as u64) {
            return Err("byte_budget");
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
        ticks.fetch_add(1, Ordering::Relaxed);
    }
    let _gone = to.shutdown().await;
    Ok(())
}

/// Completes when nothing was carried for so long.
async fn silence(ticks: &AtomicU64, idle: Duration) {
    let mut seen = ticks.load(Ordering::Relaxed);
    let mut since = Instant::now();
    loop {
        tokio::time::sleep_until(since + idle).await;
        let now = ticks.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        (seen, since) = (now, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port_and_nothing_else() {
        let read = |text: &str| text.parse::<Uri>().ok().as_ref().and_then(target);
        assert_eq!(read("Crates.IO.:443"), Some(("crates.io".to_owned(), 443)));
        assert_eq!(read("[::1]:80"), Some(("::1".to_owned(), 80)));
        assert_eq!(read("127.0.0.1:80"), Some(("127.0.0.1".to_owned(), 80)));
        for bad in [
            "crates.io",
            "crates.io:",
            "crates.io:0",
            "crates.io:99999",
            "crates.io:+443",
            "u@crates.io:443",
            "u:p@crates.io:443",
            "crates.io:443@evil:80",
            "http://crates.io:443",
            "http://crates.io:443/",
            "/",
            "*",
            "crates.io:443/x",
            "0x7f.1:80",
            "127.1:80",
            "crates.io:443\r\nx: y",
            "crates.io%00:443",
            "crates.io :443",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
