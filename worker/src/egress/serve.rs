//! Takes connections from inside, one request after the other on each, and decides what becomes of a request: a tunnel, a
//! question to the model, or a refusal with its reason. Whatever bytes come, a connection ends and nothing else does.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::body::Cut;
use super::ledger::{Outcome, Way};
use super::tunnel::Tunnel;
use super::{Shared, forward, tunnel};

/// Headers of one request.
const MOST_HEADERS: usize = 128;

/// What is answered.
pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Cut>>;

/// Serves until it is dropped. Whoever is too many waits to be taken.
pub(super) async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(shared.ledger.limits.connections));
    let mut open = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit,
            Some(_ended) = open.join_next(), if !open.is_empty() => continue,
        };
        let Ok(permit) = permit else { return };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => {
                    let shared = shared.clone();
                    open.spawn(async move {
                        let total = shared.ledger.limits.total;
                        if tokio::time::timeout(total, one(near, &shared)).await.is_err() {
                            shared.ledger.note("(connection)", Outcome::Refused("total_deadline"));
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection out of a sandbox was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_ended) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

/// One connection.
async fn one(near: UnixStream, shared: &Arc<Shared>) {
    let limits = shared.ledger.limits;
    let tunnel: Arc<Mutex<Option<Tunnel>>> = Arc::default();
    let service = service_fn(|request| {
        let (shared, tunnel) = (shared.clone(), tunnel.clone());
        async move { Ok::<_, Infallible>(answer(&shared, request, &tunnel).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head.max(8192))
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(near), service)
        .with_upgrades()
        .await;
    if let Err(error) = served
        && error.is_parse()
    {
        shared.ledger.note("(malformed)", Outcome::Refused("malformed"));
    }
    let tunnel = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tunnel.carry(&shared.ledger).await;
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>, tunnel: &Mutex<Option<Tunnel>>) -> Answer {
    let head: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let place = request.uri().to_string();
    if !shared.ledger.spend(Way::Up, "(heads)", (head + place.len()) as u64) {
        return refuse(shared, &place, "byte_budget");
    }
    if request.method() == Method::CONNECT {
        return match tunnel::open(shared, request).await {
            Ok(opened) => {
                *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
                Response::new(empty())
            }
            Err((place, why)) => refuse(shared, &place, why),
        };
    }
    // A request that names a host itself is for a proxy of another kind: what it says there and what its header says could
    // be two things.
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        return refuse(shared, &place, "connect_only");
    }
    match &shared.route {
        Some(route) => forward::forward(shared, route, request).await,
        None => refuse(shared, &place, "not_a_route"),
    }
}

/// A refusal: 403 and a stable reason, or what comes closer where nobody refuses.
pub(super) fn refuse(shared: &Shared, place: &str, why: &'static str) -> Answer {
    shared.ledger.note(place, Outcome::Refused(why));
    let status = match why {
        "unresolvable" | "unreachable" | "key_echoed" => StatusCode::BAD_GATEWAY,
        "idle" => StatusCode::GATEWAY_TIMEOUT,
        "resting" => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    };
    let message = format!("refused by the sandbox's way out: {why}");
    let text = json!({ "error": { "type": "egress_refused", "code": why, "reason": why, "message": message } });
    let mut answer = Response::new(Full::from(text.to_string()).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The same for who has to wait.
pub(super) fn wait(shared: &Shared, place: &str, left: Duration) -> Answer {
    let mut answer = refuse(shared, place, "resting");
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

fn empty() -> UnsyncBoxBody<Bytes, Cut> {
    Full::default().map_err(|never: Infallible| match never {}).boxed_unsync()
}
