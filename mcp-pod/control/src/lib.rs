//! The protocol between the operator's leader and the gateways of the tenants.
//!
//! - [`wire`]: the messages, and the client and server of the stream, as generated from `proto/`.
//! - [`codec`]: a tenant's policy as canonical bytes and their digest, and back; what cannot be read whole is refused.
//! - [`convert`]: between the messages and [`mcp_fleet_policy::model`].
//! - [`feature`]: the parts of a policy that a reader has to know.
//! - [`snapshot`]: a policy as the chunks of Secrets, the floor under every gateway.
//! - [`version`]: the handshake between neighbouring versions, and what a follower answers.

pub mod codec;
pub mod convert;
pub mod feature;
pub mod snapshot;
pub mod version;

/// The messages and services of `proto/`, as prost and tonic generate them.
#[allow(clippy::pedantic, missing_debug_implementations, unreachable_pub, unused_qualifications)]
pub mod wire {
    tonic::include_proto!("mcpfleet.control.v1");
}

pub use codec::{DecodeError, Digest, Encoded, decode, encode};
