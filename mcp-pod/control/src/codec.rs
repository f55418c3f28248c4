//! Encodes a tenant's policy as canonical bytes with a digest, and decodes it.
//!
//! The canonical bytes are those that prost writes for the converted model, in field order. prost drops unknown fields,
//! so the reader encodes the decoded policy again: [`decode`] rejects bytes whose second encoding differs, and the
//! digest in an ack is that of the second encoding, never of the received bytes.
//!
//! A policy has one canonical encoding in each [`Form`].

use std::fmt;
use std::str::FromStr;

use mcp_fleet_policy::model::TenantPolicy;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::convert::{self, ConvertError};
use crate::form::Form;
use crate::wire;

/// The largest encoded policy in bytes; a gateway must be able to hold it twice.
pub const MAX_POLICY: usize = 16 * 1024 * 1024;

/// SHA-256 of the canonical bytes of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 32 bytes as messages carry them.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Reads a digest from a message; `None` if it is not 32 bytes long.
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

    /// Parses 64 lower-case hexadecimal digits.
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

/// A policy as canonical bytes, with their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPolicy {
    /// The canonical bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub digest: Digest,
}

/// Why bytes cannot be decoded as a policy that this version can enforce.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are more bytes than [`MAX_POLICY`].
    #[error("failed to read the policy: it is larger than {MAX_POLICY} bytes")]
    TooLarge,
    /// The bytes are not a protobuf message.
    #[error("failed to read the policy")]
    Wire(#[from] prost::DecodeError),
    /// The message is not a valid policy.
    #[error("failed to understand the policy")]
    Convert(#[from] ConvertError),
    /// The policy has fields that this version does not know, or was not written by [`encode`].
    #[error("failed to understand the whole policy: it has fields that this version does not know")]
    NotUnderstood,
    /// A text is not a digest.
    #[error("failed to read a digest: expected 64 lower-case hexadecimal digits")]
    Digest,
}

/// A policy that was decoded, with every byte understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedPolicy {
    /// The policy. Equal lists of arguments and equal grants in it are shared.
    pub policy: TenantPolicy,
    /// The form that it was written in.
    pub form: Form,
    /// Digest of the policy encoded again in that form.
    pub digest: Digest,
}

impl DecodedPolicy {
    /// Returns the digest of the policy in the shared form. It identifies what the policy says, in whichever form it was
    /// received.
    pub fn identity(&self) -> Digest {
        match self.form {
            Form::Shared => self.digest,
            Form::Expanded => encode(&self.policy).digest,
        }
    }
}

/// Encodes a policy in the shared form as canonical bytes with their digest.
///
/// Durations are truncated to milliseconds, the precision of the wire format.
pub fn encode(policy: &TenantPolicy) -> EncodedPolicy {
    encode_as(policy, Form::Shared)
}

/// Returns the size of a policy in the shared form, in bytes.
pub fn encoded_size(policy: &TenantPolicy) -> usize {
    convert::to_wire(policy, Form::Shared).encoded_len()
}

/// Encodes a policy in this form as canonical bytes with their digest.
pub fn encode_as(policy: &TenantPolicy, form: Form) -> EncodedPolicy {
    let bytes = convert::to_wire(policy, form).encode_to_vec();
    let digest = Digest::of(&bytes);
    EncodedPolicy { bytes, digest }
}

/// Encodes a policy in the expanded form, unless that is larger than [`MAX_POLICY`].
pub fn expanded(policy: &TenantPolicy) -> Option<EncodedPolicy> {
    // The messages of a large expanded form would fill memory, so its size is computed first.
    if convert::expanded_size(policy) > MAX_POLICY {
        return None;
    }
    Some(encode_as(policy, Form::Expanded)).filter(|encoded| encoded.bytes.len() <= MAX_POLICY)
}

/// Decodes a policy in either form; fails unless every byte was understood.
pub fn decode(bytes: &[u8]) -> Result<DecodedPolicy, DecodeError> {
    if bytes.len() > MAX_POLICY {
        return Err(DecodeError::TooLarge);
    }
    let message = wire::Policy::decode(bytes)?;
    let form = Form::for_reader(&message.required_features);
    let policy = convert::from_wire(message)?;
    let again = encode_as(&policy, form);
    if again.bytes != bytes {
        return Err(DecodeError::NotUnderstood);
    }
    Ok(DecodedPolicy { policy, form, digest: again.digest })
}
