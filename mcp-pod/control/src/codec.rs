//! A tenant's policy as canonical bytes, and their digest.
//!
//! The bytes are what prost writes for the converted model, in field order. prost drops fields it does not know, so
//! a reader encodes again what it understood: [`decode`] refuses a policy whose second encoding differs, and the
//! digest in an ack is that of the second encoding, never of the bytes that came in.

use std::fmt;
use std::str::FromStr;

use mcp_fleet_policy::model::TenantPolicy;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::convert::{self, ConvertError};
use crate::wire;

/// The largest policy, in bytes of its encoding: what a gateway is ready to hold twice.
pub const MAX_POLICY: usize = 16 * 1024 * 1024;

/// SHA-256 of the canonical bytes of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 32 bytes, as they stand in messages.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// A digest from a message; none: not 32 bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DecodeError;

    /// Reads 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() {
            return Err(DecodeError::Digest);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(DecodeError::Digest) };
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

/// The canonical bytes of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256.
    pub digest: Digest,
}

/// Why bytes are not a policy that this build can enforce.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than [`MAX_POLICY`].
    #[error("failed to read the policy: it is larger than {MAX_POLICY} bytes")]
    TooLarge,
    /// Not protobuf.
    #[error("failed to read the policy")]
    Wire(#[from] prost::DecodeError),
    /// Something in it has no meaning here.
    #[error("failed to understand the policy")]
    Convert(#[from] ConvertError),
    /// It says something that this build cannot see, or was not written by [`encode`].
    #[error("failed to understand the whole policy: it holds fields that this version does not know")]
    NotUnderstood,
    /// Not a digest.
    #[error("failed to read a digest: 64 lower-case hexadecimal digits are expected")]
    Digest,
}

/// The canonical bytes of a policy, and their digest.
///
/// Durations are cut to milliseconds, which is all the wire carries.
pub fn encode(policy: &TenantPolicy) -> Encoded {
    let bytes = convert::to_wire(policy).encode_to_vec();
    let digest = Digest::of(&bytes);
    Encoded { bytes, digest }
}

/// The policy in some bytes, provided that all of them were understood.
pub fn decode(bytes: &[u8]) -> Result<TenantPolicy, DecodeError> {
    if bytes.len() > MAX_POLICY {
        return Err(DecodeError::TooLarge);
    }
    let policy = convert::from_wire(wire::Policy::decode(bytes)?)?;
    if encode(&policy).bytes != bytes {
        return Err(DecodeError::NotUnderstood);
    }
    Ok(policy)
}
