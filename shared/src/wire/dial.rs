//! Connecting to a supervisor, the same way for everybody who does: how long it may take, how a connection that went
//! silent is noticed, and what is said where it comes to nothing.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// How often a silent connection is asked, and how long an answer may take (`coordination.md` 3.3).
pub const KEEPALIVE: Duration = Duration::from_secs(3);

/// Connects to one URL.
///
/// # Errors
/// The URL, and why it came to nothing, in one line.
pub async fn dial(url: &str, patience: Duration) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("{url}: {error}"))?;
    let endpoint = endpoint
        .connect_timeout(patience)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    // The name is looked up and spoken to within the same time.
    match tokio::time::timeout(patience, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(format!("{url}: {}", deepest(&error))),
        Err(_) => Err(format!("{url}: no answer within {} s", patience.as_secs())),
    }
}

/// What is at the bottom of an error: the transport's own words say little.
#[must_use]
pub fn deepest(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(cause) = at.source() {
        at = cause;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_comes_to_names_the_url_and_the_cause() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let away = dial(&format!("http://{free}"), Duration::from_secs(5)).await.unwrap_err();
        assert!(away.starts_with(&format!("http://{free}: ")) && away.contains("refused"), "{away}");
        let odd = dial("not a url", Duration::from_secs(5)).await.unwrap_err();
        assert!(odd.starts_with("not a url: "), "{odd}");
    }
}
