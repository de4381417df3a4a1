//! W3C trace context in and out: of headers, of stored runs, of the environment. What cannot be read is as good as
//! absent: no caller is refused for the trace it names.

use std::collections::HashMap;

use opentelemetry::Context;
pub use opentelemetry::Context as Parent;
pub use opentelemetry::context::{FutureExt as Within, WithContext};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::domain::trace::TraceContext;

/// The header, and in upper case the variable, with the parent.
pub const PARENT: &str = "traceparent";

/// The header, and in upper case the variable, with what vendors add.
pub const STATE: &str = "tracestate";

/// Bytes of the longest parent that is read: today's are 55 long, later versions may be longer.
const MAX_PARENT: usize = 128;

/// Bytes of the longest state that is passed on; the rest of the trace context does not need it.
const MAX_STATE: usize = 512;

/// The context that `get` knows under its names; an empty one where there is none, or none that can be used.
pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Context {
    let Some(parent) = get(PARENT).filter(|parent| parent.len() <= MAX_PARENT) else { return Context::new() };
    let mut carrier = HashMap::from([(PARENT.to_owned(), parent.to_owned())]);
    if let Some(state) = get(STATE).filter(|state| state.len() <= MAX_STATE) {
        carrier.insert(STATE.to_owned(), state.to_owned());
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// The same of a context that was kept.
#[must_use]
pub fn kept(trace: Option<&TraceContext>) -> Context {
    read(|name| match name {
        PARENT => trace.map(|trace| trace.parent.as_str()),
        _ => trace.map(|trace| trace.state.as_str()).filter(|state| !state.is_empty()),
    })
}

/// A context as text; none where it names no span.
#[must_use]
pub fn text(context: &Context) -> Option<TraceContext> {
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(context, &mut carrier);
    let parent = carrier.remove(PARENT)?;
    Some(TraceContext { parent, state: carrier.remove(STATE).unwrap_or_default() })
}

/// What work that is asked for now belongs to: the span we are in; without telemetry, what our caller named.
#[must_use]
pub fn current() -> Option<TraceContext> {
    of(&Span::current()).or_else(|| text(&Context::current()))
}

/// A span as the parent of others; none without telemetry.
#[must_use]
pub fn of(span: &Span) -> Option<TraceContext> {
    text(&span.context())
}

/// The headers that go along with a call made now.
#[must_use]
pub fn headers() -> Vec<(&'static str, String)> {
    let Some(trace) = current() else { return Vec::new() };
    [(PARENT, trace.parent), (STATE, trace.state)].into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// The variables by which a process that is started goes on with a trace.
#[must_use]
pub fn variables(trace: Option<TraceContext>) -> Vec<(String, String)> {
    let Some(trace) = trace else { return Vec::new() };
    let pairs = [(PARENT, trace.parent), (STATE, trace.state)];
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_uppercase(), value)).collect()
}

/// Makes a span that was not entered yet the child of a context.
pub fn adopt(span: &Span, parent: &Context) {
    if parent.span().span_context().is_valid() {
        // Refused without telemetry, where nobody asks for it.
        let _refused = span.set_parent(parent.clone());
    }
}

/// Adds what telemetry knows by its conventions and the log need not repeat.
pub fn describe<const N: usize>(span: &Span, pairs: [(&'static str, String); N]) {
    for (key, value) in pairs {
        span.set_attribute(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn seen(parent: &str, state: Option<&str>) -> Option<TraceContext> {
        text(&read(|name| if name == PARENT { Some(parent) } else { state }))
    }

    #[test]
    fn a_context_comes_back_as_it_was() {
        let trace = seen(GOOD, Some("vendor=x,other=y")).unwrap();
        assert_eq!((trace.parent.as_str(), trace.state.as_str()), (GOOD, "vendor=x,other=y"));
        assert_eq!(text(&kept(Some(&trace))).unwrap(), trace);
        assert_eq!(seen(GOOD, None).unwrap().state, "");
        let variables = variables(Some(trace));
        assert_eq!(variables[0], ("TRACEPARENT".to_owned(), GOOD.to_owned()));
        assert_eq!(variables[1], ("TRACESTATE".to_owned(), "vendor=x,other=y".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_as_good_as_absent() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let long = format!("{GOOD}-{}", "f".repeat(100_000));
        for bad in ["", "x", "00-zz-yy-01", zero, &GOOD[..50], "ff-é", &long, &GOOD.to_uppercase()] {
            assert_eq!(seen(bad, Some("a=b")), None, "{bad:.80}");
        }
        assert_eq!(seen(GOOD, Some(&"a=b,".repeat(10_000))).unwrap().state, "", "a state that is too long is left out");
        assert_eq!(seen(GOOD, Some("no pair")).unwrap().parent, GOOD);
    }
}
