//! The line to a supervisor: one that is in this process, or the first of several over the network that answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use autopack_shared::runtime::telemetry::context;
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::{MAX_MESSAGE, dial};

/// How long one supervisor may take to answer.
const CONNECT: Duration = Duration::from_secs(2);

/// The longest pause between two tries of a transfer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whether another try of a call may end otherwise: its way was broken, or what the supervisor needs is away.
pub(crate) fn passes(status: &Status) -> bool {
    let passing = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Aborted, Code::DeadlineExceeded];
    // The transport's own errors; the supervisor's have a reason.
    let severed = status.code() == Code::Internal && status.get_details_error_info().is_none();
    severed || passing.contains(&status.code())
}

/// Tries of a transfer from and to this process: nothing is in between that could be away for long.
const TRIES: u32 = 6;

/// Pauses that double, and when to stop. Over a network there is no end to them: who waits has a deadline of its own, and
/// a lease that may end.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
    left: Option<u32>,
}

impl Pauses {
    /// Waits until the next try; false where there is none.
    pub(crate) async fn next(&mut self) -> bool {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return false;
            }
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Adds the worker's token to every call, and the span that it is made in.
#[derive(Debug, Clone, Default)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    /// The header for a token; none where the door asks for none.
    ///
    /// # Errors
    /// When the token has characters that no header can carry.
    pub fn new(token: Option<&str>) -> Result<Self, String> {
        let header = token.map(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>()).transpose();
        let mut header = header.map_err(|_| "the token has characters that cannot be sent".to_owned())?;
        if let Some(header) = &mut header {
            header.set_sensitive(true);
        }
        Ok(Self(header))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut call: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            call.metadata_mut().insert("authorization", header.clone());
        }
        for (name, value) in context::headers() {
            if let Ok(value) = value.parse() {
                call.metadata_mut().insert(name, value);
            }
        }
        Ok(call)
    }
}

/// A client of the workers' service.
pub(crate) type Client = WorkerServiceClient<InterceptedService<Channel, Token>>;

/// Where supervisors are.
#[derive(Debug, Clone)]
pub enum Servers {
    /// One in this process.
    Here(Channel),
    /// Any of these URLs; the first that answers is used.
    Any(Vec<String>),
}

/// The connection in use, shared by the session and by transfers.
#[derive(Debug)]
pub struct Line {
    servers: Servers,
    token: Token,
    // Never held across an await.
    current: RwLock<Option<Channel>>,
    /// The server that is asked first the next time.
    first: AtomicUsize,
}

impl Line {
    /// Where supervisors are, as URLs; none for one in this process.
    pub(crate) fn places(&self) -> &[String] {
        match &self.servers {
            Servers::Here(_) => &[],
            Servers::Any(urls) => urls,
        }
    }

    /// A line that is not connected yet.
    #[must_use]
    pub fn new(servers: Servers, token: Token) -> Self {
        Self { servers, token, current: RwLock::default(), first: AtomicUsize::default() }
    }

    /// The pauses of one transfer.
    pub(crate) const fn pauses(&self) -> Pauses {
        let left = match self.servers {
            Servers::Here(_) => Some(TRIES),
            Servers::Any(_) => None,
        };
        Pauses { next: Duration::from_millis(100), left }
    }

    /// Connects, anew where there was a connection: the server that was used last is asked last, so that one that takes
    /// connections and cannot serve them is left.
    ///
    /// # Errors
    /// What every one of them says.
    pub(crate) async fn connect(&self) -> Result<Client, String> {
        let channel = match &self.servers {
            Servers::Here(channel) => channel.clone(),
            Servers::Any(urls) => self.any(urls).await?,
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        Ok(self.client_of(channel))
    }

    async fn any(&self, urls: &[String]) -> Result<Channel, String> {
        let mut refused = Vec::new();
        let first = self.first.load(Ordering::Relaxed);
        for (at, url) in urls.iter().enumerate().cycle().skip(first).take(urls.len()) {
            match dial::dial(url, CONNECT).await {
                Ok(channel) => {
                    self.first.store((at + 1) % urls.len(), Ordering::Relaxed);
                    return Ok(channel);
                }
                Err(why) => refused.push(why),
            }
        }
        Err(refused.join("; "))
    }

    /// The client of the connection in use, if there is one.
    pub(crate) fn client(&self) -> Option<Client> {
        let channel = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        channel.map(|channel| self.client_of(channel))
    }

    fn client_of(&self, channel: Channel) -> Client {
        WorkerServiceClient::with_interceptor(channel, self.token.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_server_that_was_used_last_is_asked_last() {
        let mut urls = Vec::new();
        let mut open = Vec::new();
        for _ in 0..3 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            open.push(Some(listener));
        }
        // The second one is away, so that the third one is found on the way.
        open[1] = None;
        let line = Line::new(Servers::Any(urls), Token::default());
        let mut used = Vec::new();
        for _ in 0..4 {
            line.connect().await.unwrap();
            used.push(line.first.load(Ordering::Relaxed));
        }
        assert_eq!(used, [1, 0, 1, 0]);
    }
}
