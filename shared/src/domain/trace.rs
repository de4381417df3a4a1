//! Where something that goes on in another process, or later, belongs in a trace: the W3C trace context as text.

use serde::{Deserialize, Serialize};

/// A W3C trace context: the parent of spans to come. Only ever made by the propagator, so it is well-formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `traceparent`.
    pub parent: String,
    /// `tracestate`; mostly empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
}
