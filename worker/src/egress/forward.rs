//! A question to the model's provider, as far as the route lets it: its head made anew with the key, its body and the
//! answer's passed through piece by piece.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, SET_COOKIE, TRANSFER_ENCODING, UPGRADE};
use hyper::{Request, Response};

use super::Shared;
use super::body::{Downward, Sieve, Upward, Watched};
use super::ledger::{Outcome, Way};
use super::route::Route;
use super::serve::{Answer, refuse, wait};
use super::spent::Call;
use super::usage::Tap;
use crate::providers::retry_after;

/// How long a connection to a provider may take to stand.
const CONNECT: Duration = Duration::from_secs(15);

/// Headers of an answer that are about its connection, or would be kept.
const LEFT_OUT: [HeaderName; 4] = [CONNECTION, TRANSFER_ENCODING, UPGRADE, SET_COOKIE];

/// The client for providers: no proxy, no redirect, nothing unpacked.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    // The first one stays; it is always this one.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(4)
        .pool_idle_timeout(Duration::from_secs(20))
        // A key goes to the address it was given for.
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

pub(super) async fn forward(shared: &Arc<Shared>, route: &Route, request: Request<Incoming>) -> Answer {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let made = route.judge(request.method(), request.uri()).and_then(|to| Ok((to, route.head(request.headers())?)));
    let (onward, head) = match made {
        Ok(made) => made,
        Err(why) => return refuse(shared, &asked, why),
    };
    let place = route.place();
    let call = if onward.costs {
        match shared.spent.begin() {
            Ok(call) => call,
            Err(("resting", left)) => return wait(shared, &place, left),
            Err((why, _)) => return refuse(shared, &place, why),
        }
    } else {
        Call::free()
    };
    shared.ledger.note(&place, Outcome::Allowed);
    let idle = shared.ledger.limits.idle;
    let (parts, body) = request.into_parts();
    let watch = Upward { ledger: shared.ledger.clone(), place: place.clone(), call: call.clone() };
    let sent = shared
        .client
        .request(parts.method, onward.url)
        .headers(head)
        .body(reqwest::Body::wrap(Watched::new(body, watch, idle)))
        .send();
    let answer = match tokio::time::timeout(idle, sent).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            // An address of the operator's, and no key: what stands in the log is for him.
            let unmet = error.is_connect();
            tracing::warn!(provider = route.name, error = %error.without_url(), "a provider did not answer an agent");
            if unmet {
                call.settle();
            }
            if onward.costs {
                shared.spent.heard(None, None);
            }
            return refuse(shared, &place, "unreachable");
        }
        Err(_) => {
            if onward.costs {
                shared.spent.heard(None, None);
            }
            return refuse(shared, &place, "idle");
        }
    };
    if onward.costs {
        shared.spent.heard(Some(answer.status().as_u16()), retry_after(answer.headers()));
    }
    passed(shared, route, answer, call)
}

/// An answer on its way in.
fn passed(shared: &Arc<Shared>, route: &Route, answer: reqwest::Response, call: Arc<Call>) -> Answer {
    let (place, limits) = (route.place(), shared.ledger.limits);
    // What was turned away costs a call and no tokens.
    if !answer.status().is_success() {
        call.settle();
    }
    let call = if answer.status().is_success() { call } else { Call::free() };
    let sieve = route.provider.key.as_ref().map_or_else(Sieve::default, |key| Sieve::of(key.reveal()));
    if answer.headers().values().any(|value| sieve.finds(value.as_bytes())) {
        return refuse(shared, &place, "key_echoed");
    }
    let size: usize = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if !shared.ledger.spend(Way::Down, &place, size as u64) {
        return refuse(shared, &place, "byte_budget");
    }
    let (status, mut head) = (answer.status(), HeaderMap::new());
    for (name, value) in answer.headers().iter().filter(|(name, _)| !LEFT_OUT.contains(name)) {
        head.append(name.clone(), value.clone());
    }
    let watch = Downward { ledger: shared.ledger.clone(), place, call, sieve, tap: Tap::default() };
    let body = Watched::new(reqwest::Body::from(answer), watch, limits.idle);
    let mut passed = Response::new(body.boxed_unsync());
    *passed.status_mut() = status;
    *passed.headers_mut() = head;
    passed
}
