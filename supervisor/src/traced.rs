//! The span of each call, as the child of the caller's. Made and given its parent before it is entered: afterwards it
//! would be too late.

use std::task::{Context, Poll};

use tonic::codegen::http::Request;
use tower::{Layer, Service};
use tracing::Instrument as _;
use tracing::instrument::Instrumented;

use autopack_shared::runtime::telemetry::context::{self, WithContext, Within as _};

/// Puts a span around every call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tracing;

/// A service whose calls have spans.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
}

impl<S> Layer<S> for Tracing {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WithContext<Instrumented<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Request<B>) -> Self::Future {
        let parent = context::read(|name| call.headers().get(name)?.to_str().ok());
        let name = call.uri().path().trim_start_matches('/');
        let span = tracing::info_span!("rpc", otel.name = name, otel.kind = "server");
        context::adopt(&span, &parent);
        if !span.is_disabled() {
            let (service, method) = name.split_once('/').unwrap_or((name, ""));
            let pairs = [("rpc.system.name", "grpc".to_owned()), ("rpc.method", format!("{service}/{method}"))];
            context::describe(&span, pairs);
        }
        // The caller's own context besides: it is passed on where this process makes no spans.
        self.inner.call(call).instrument(span).with_context(parent)
    }
}
