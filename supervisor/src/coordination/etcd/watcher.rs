//! Following one key. What a watch tells is a hint that it is time to look; what is told on is what a linearizable read
//! found (`coordination.md` 3.2, rule 4).

use std::time::Duration;

use etcd_client::KeyValue;
use tokio::time::{sleep, timeout};

use super::link::Link;

/// Pauses between two tries of an etcd that does not answer: from, to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What is known of a key.
pub(super) enum Seen<'a> {
    /// The revision of a moment, and the key at that moment.
    At(i64, Option<&'a KeyValue>),
    /// No answer can be had.
    Nothing,
}

/// Why a watch is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The key changed.
    Changed,
    /// Its beginning is no longer kept.
    Compacted,
    /// Nothing was heard for long.
    Silent,
    /// It was cancelled, or its stream broke.
    Broken,
}

/// Looks, waits until there is a reason to look again, and so on, for ever.
pub(super) async fn follow(link: &Link, key: &str, silence: Duration, mut tell: impl FnMut(Seen<'_>)) {
    let keys = [key.to_owned()];
    let mut pause = PAUSE.0;
    loop {
        let ended = match link.read(&keys).await {
            Ok((at, found)) => {
                tell(Seen::At(at, found.first().and_then(Option::as_ref)));
                wait(link, key, at + 1, silence).await
            }
            Err(error) => {
                tracing::debug!(%error, key, "a key cannot be followed");
                tell(Seen::Nothing);
                Ended::Broken
            }
        };
        if ended == Ended::Broken {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        } else {
            pause = PAUSE.0;
        }
    }
}

/// Waits from a revision on, until there is a reason to look at the key again.
pub(super) async fn wait(link: &Link, key: &str, from: i64, silence: Duration) -> Ended {
    let Ok(mut stream) = link.watch(key, from).await else { return Ended::Broken };
    loop {
        match timeout(silence, stream.message()).await {
            Err(_) => return Ended::Silent,
            Ok(Ok(Some(message))) if message.compact_revision() > 0 => return Ended::Compacted,
            Ok(Ok(Some(message))) if message.canceled() => return Ended::Broken,
            Ok(Ok(Some(message))) if !message.events().is_empty() => return Ended::Changed,
            // It was made, or goes on.
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None) | Err(_)) => return Ended::Broken,
        }
    }
}
