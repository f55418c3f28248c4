//! A policy as files: compressed, cut into chunks that fit into Secrets, with an index.
//!
//! The operator writes the files into the Secrets `gateway-policy` ([`INDEX`] and chunk 0) and `gateway-policy-<n>`
//! (chunk n); a gateway finds all of them in one projected directory. The index names the chunks of its policy. Those
//! beyond the first go into Secrets that the index before it does not name, so that whoever dies between two writes
//! leaves the snapshot before it whole. Directories are not updated together with each other, so a gateway may find
//! chunks of another generation than the index for a while: then [`join`] fails, and the index alone still says which
//! generation a gateway must not go below ([`read_index`]).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use mcp_fleet_policy::model::TenantPolicy;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, Digest, Encoded, MAX_POLICY};

/// The name of the index.
pub const INDEX: &str = "index.json";
/// The most bytes in a chunk; with the index and Kubernetes' own overhead it stays below a Secret's 1 MiB.
pub const MAX_CHUNK: usize = 700 * 1024;
/// The most chunks of one policy: the first, and [`MORE`] of either set.
pub const MAX_CHUNKS: usize = 1 + MORE;
/// Chunks in Secrets of their own.
const MORE: usize = 3;
/// All chunks that there can be, those of the policy before among them: the first, and two sets of [`MORE`].
pub const CHUNK_PLACES: usize = 1 + 2 * MORE;

/// The name of a chunk.
pub fn chunk_name(number: usize) -> String {
    format!("chunk-{number}")
}

/// The name of the Secret that a chunk is in; the index is with the first.
pub fn secret_name(number: usize) -> String {
    if number == 0 { "gateway-policy".to_owned() } else { format!("gateway-policy-{number}") }
}

/// What the files hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The generation of the policy.
    pub generation: u64,
    /// Its digest, as hexadecimal digits.
    pub digest: String,
    /// The numbers of its chunks, in their order.
    pub chunks: Vec<usize>,
    /// How their concatenation is compressed.
    pub encoding: Encoding,
}

/// How the concatenated chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
}

/// Why files are not a snapshot, or a policy does not fit into one.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Compressed, the policy is larger than all chunks together.
    #[error("failed to write the snapshot: {0} compressed bytes do not fit into {MAX_CHUNKS} chunks")]
    TooLarge(usize),
    /// The policy could not be compressed.
    #[error("failed to compress the snapshot")]
    Compress(#[source] std::io::Error),
    /// A file is not there.
    #[error("failed to read the snapshot: {0} is missing")]
    Missing(String),
    /// The index is not one.
    #[error("failed to read the snapshot: {INDEX} is not an index")]
    Index(#[source] serde_json::Error),
    /// The index names more chunks than there can be, or none, or such as there cannot be.
    #[error("failed to read the snapshot: chunks {0:?}, of 1 to {MAX_CHUNKS} below {CHUNK_PLACES}")]
    Chunks(Vec<usize>),
    /// The chunks cannot be decompressed.
    #[error("failed to decompress the snapshot")]
    Decompress(#[source] std::io::Error),
    /// Decompressed, the policy is larger than [`MAX_POLICY`].
    #[error("failed to read the snapshot: it is larger than {MAX_POLICY} bytes")]
    Bomb,
    /// The chunks are not those of the index: mostly, an update is under way.
    #[error("failed to read the snapshot: its chunks do not have the digest of its index")]
    Mixed,
    /// The bytes are not a policy.
    #[error("failed to read the policy of the snapshot")]
    Policy(#[from] DecodeError),
    /// The index and the policy name different generations.
    #[error("failed to read the snapshot: its index says generation {index}, its policy {policy}")]
    Generation {
        /// What the index says.
        index: u64,
        /// What the policy says.
        policy: u64,
    },
}

/// The files of a policy, by name, beside those that the index `before` names. The same policy gives the same
/// bytes.
pub fn split(
    generation: u64,
    encoded: &Encoded,
    before: Option<&Index>,
) -> Result<BTreeMap<String, Vec<u8>>, SnapshotError> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&encoded.bytes).map_err(SnapshotError::Compress)?;
    let compressed = gzip.finish().map_err(SnapshotError::Compress)?;
    if compressed.len() > MAX_CHUNK * MAX_CHUNKS {
        return Err(SnapshotError::TooLarge(compressed.len()));
    }
    let first_taken = before.is_some_and(|before| before.chunks.iter().any(|number| (1..=MORE).contains(number)));
    let shift = if first_taken { MORE } else { 0 };
    let (mut files, mut chunks) = (BTreeMap::new(), Vec::new());
    for (place, chunk) in compressed.chunks(MAX_CHUNK).enumerate() {
        // The first stands beside the index, and is written with it.
        let number = if place == 0 { 0 } else { place + shift };
        chunks.push(number);
        files.insert(chunk_name(number), chunk.to_vec());
    }
    let index = Index { generation, digest: encoded.digest.to_string(), chunks, encoding: Encoding::Gzip };
    let index = serde_json::to_vec(&index).map_err(SnapshotError::Index)?;
    files.insert(INDEX.to_owned(), index);
    Ok(files)
}

/// The index among some files: it alone gives the floor.
pub fn read_index(files: &BTreeMap<String, Vec<u8>>) -> Result<Index, SnapshotError> {
    let bytes = files.get(INDEX).ok_or_else(|| SnapshotError::Missing(INDEX.to_owned()))?;
    let index: Index = serde_json::from_slice(bytes).map_err(SnapshotError::Index)?;
    let count = (1..=MAX_CHUNKS).contains(&index.chunks.len());
    if !count || index.chunks.iter().any(|number| *number >= CHUNK_PLACES) {
        return Err(SnapshotError::Chunks(index.chunks));
    }
    Ok(index)
}

/// The policy in some files, provided that they belong together.
pub fn join(files: &BTreeMap<String, Vec<u8>>) -> Result<(Encoded, TenantPolicy), SnapshotError> {
    let Index { generation, digest, chunks, encoding: Encoding::Gzip } = read_index(files)?;
    let mut compressed = Vec::new();
    for name in chunks.into_iter().map(chunk_name) {
        compressed.extend_from_slice(files.get(&name).ok_or(SnapshotError::Missing(name))?);
    }
    // One byte more than is allowed tells a policy of exactly the limit from a larger one.
    let limit = MAX_POLICY as u64 + 1;
    let mut bytes = Vec::new();
    GzDecoder::new(compressed.as_slice()).take(limit).read_to_end(&mut bytes).map_err(SnapshotError::Decompress)?;
    if bytes.len() > MAX_POLICY {
        return Err(SnapshotError::Bomb);
    }
    let encoded = Encoded { digest: Digest::of(&bytes), bytes };
    if encoded.digest != digest.parse()? {
        return Err(SnapshotError::Mixed);
    }
    let policy = codec::decode(&encoded.bytes)?;
    if policy.generation != generation {
        return Err(SnapshotError::Generation { index: generation, policy: policy.generation });
    }
    Ok((encoded, policy))
}
