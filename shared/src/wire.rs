//! The wire: generated messages, and the one place that turns domain values into them and back.

/// Generated from `proto/autopack/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    clippy::use_self,
    clippy::too_many_lines,
    reason = "generated code"
)]
pub mod pb {
    tonic::include_proto!("autopack.v1");
}

pub mod dial;

/// A message as it is kept to be answered again.
#[must_use]
pub fn kept(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// A message that was kept; none where it cannot be read.
#[must_use]
pub fn again<M: prost::Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

/// The protocol version that `Hello` carries; a peer of another one is refused.
pub const PROTOCOL: u32 = 1;

/// The largest message in either direction, in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// The metadata that names the project a call is about.
pub const PROJECT_HEADER: &str = "autopack-project";

/// Messages of its leases that a worker has under way at most: sent, and not acknowledged.
pub const WINDOW: usize = 128;
