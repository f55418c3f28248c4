//! The gRPC protocol between the operator's leader and the gateways of the tenants.
//!
//! - [`wire`]: the messages and the client and server of the control stream, generated from `proto/`.
//! - [`clock`]: the clock that leases of homes are measured on.
//! - [`codec`]: encodes a tenant's policy as canonical bytes with a digest, and decodes it; bytes that are not fully
//!   understood are rejected.
//! - [`convert`]: converts between the messages and [`mcp_fleet_policy::model`].
//! - [`feature`]: the named features of a policy that its reader has to know.
//! - [`form`]: the two forms of a policy on the wire: with shared parts in tables, and without for older readers.
//! - [`homes`]: converts between the messages and those of [`mcp_fleet_homes`].
//! - [`restrict`]: stops calls in a policy of a later version, which cannot be decoded.
//! - [`server_report`]: the form in which the operator keeps what a tool server reported about itself.
//! - [`snapshot`]: a policy as files in Secrets, which gateways mount.
//! - [`version`]: version negotiation, and the answer of a replica that is not the leader.

pub mod clock;
pub mod codec;
pub mod convert;
pub mod feature;
pub mod form;
pub mod homes;
pub mod restrict;
pub mod server_report;
pub mod snapshot;
pub mod version;

/// Messages and services that prost and tonic generate from `proto/`.
#[allow(clippy::pedantic, missing_debug_implementations, unreachable_pub, unused_qualifications)]
pub mod wire {
    include!("generated/mcpfleet.control.v1.rs");
}

pub use codec::{DecodeError, DecodedPolicy, Digest, EncodedPolicy, decode, encode, encode_as, encoded_size};
pub use form::Form;
