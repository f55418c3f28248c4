//! A policy as files: compressed, split into chunks that fit into Secrets, with an index.
//!
//! The operator writes the files into the Secrets `gateway-policy` ([`INDEX_FILE`] and chunk 0) and `gateway-policy-<n>`
//! (chunk n). A gateway reads all of them from one projected directory. The index lists the chunks of its policy.
//! Chunks other than the first go into Secrets that the previous index does not list, so that an operator that dies
//! between two writes leaves the previous snapshot intact. The Secrets do not all change at the same moment, so for a
//! while a gateway may see chunks of a different generation than the index. Then [`join`] fails, but the index alone
//! still gives the generation below which the gateway must not go ([`read_index`]).
//!
//! A snapshot of a later version is not damaged. If its index has another form, it has a higher `version` and still has
//! `generation` ([`SnapshotError::LaterIndex`]). Otherwise only its policy cannot be decoded, and [`read_encoded`] returns
//! it as it was written.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, DecodedPolicy, Digest, EncodedPolicy, MAX_POLICY};

/// File name of the index.
pub const INDEX_FILE: &str = "index.json";
/// Maximum bytes of a chunk; with the index and the overhead of Kubernetes, a Secret stays below its limit of 1 MiB.
pub const MAX_CHUNK_BYTES: usize = 700 * 1024;
/// Maximum number of chunks of one policy: the first, and one set of further chunks.
pub const MAX_CHUNKS: usize = 1 + SET_SIZE;
/// Maximum bytes of all chunks of one policy.
pub const MAX_COMPRESSED: usize = MAX_CHUNK_BYTES * MAX_CHUNKS;
/// Number of chunks in a set. Successive snapshots alternate between two sets.
const SET_SIZE: usize = 3;
/// Number of different chunks, including those of the previous policy: the first, and two sets of further chunks.
pub const CHUNK_SLOTS: usize = 1 + 2 * SET_SIZE;

/// Returns the file name of a chunk.
pub fn chunk_name(number: usize) -> String {
    format!("chunk-{number}")
}

/// Returns the name of the Secret that holds a chunk; the Secret of the first chunk also holds the index.
pub fn secret_name(number: usize) -> String {
    if number == 0 { "gateway-policy".to_owned() } else { format!("gateway-policy-{number}") }
}

/// Version of the index that this build reads and writes. An index without `version` has this one.
const INDEX_VERSION: u64 = 1;

/// What every version of the index has.
#[derive(Deserialize)]
struct AnyIndex {
    #[serde(default)]
    version: u64,
    generation: u64,
}

/// The index of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotIndex {
    /// Generation of the policy.
    pub generation: u64,
    /// Digest of the policy, in hexadecimal digits.
    pub digest: String,
    /// Numbers of the chunks, in order.
    pub chunks: Vec<usize>,
    /// Compression of the concatenated chunks.
    pub encoding: Encoding,
}

/// Compression of the concatenated chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// gzip (RFC 1952).
    Gzip,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The compressed policy does not fit into the maximum number of chunks.
    #[error("failed to write the snapshot: {0} compressed bytes do not fit into {MAX_CHUNKS} chunks")]
    TooLarge(usize),
    /// The policy could not be compressed.
    #[error("failed to compress the snapshot")]
    Compress(#[source] std::io::Error),
    /// A file is missing.
    #[error("failed to read the snapshot: {0} is missing")]
    Missing(String),
    /// The index is not valid.
    #[error("failed to read the snapshot: {INDEX_FILE} is not an index")]
    Index(#[source] serde_json::Error),
    /// The index has the form of a later version.
    #[error("failed to read the snapshot: {INDEX_FILE} has version {version}, which this build does not know")]
    LaterIndex {
        /// Version of the index.
        version: u64,
        /// Generation of the policy.
        generation: u64,
    },
    /// The index lists no chunks, too many chunks, or chunk numbers that do not exist.
    #[error(
        "failed to read the snapshot: the index lists chunks {0:?}; expected 1 to {MAX_CHUNKS} numbers below {CHUNK_SLOTS}"
    )]
    Chunks(Vec<usize>),
    /// The chunks cannot be decompressed.
    #[error("failed to decompress the snapshot")]
    Decompress(#[source] std::io::Error),
    /// The decompressed policy is larger than [`MAX_POLICY`].
    #[error("failed to read the snapshot: it is larger than {MAX_POLICY} bytes")]
    DecompressedTooLarge,
    /// The chunks do not belong to the index, usually because an update is in progress.
    #[error("failed to read the snapshot: the digest of the chunks is not that of the index")]
    DigestMismatch,
    /// The decompressed bytes are not a policy.
    #[error("failed to read the policy of the snapshot")]
    Policy(#[from] DecodeError),
    /// The index and the policy have different generations.
    #[error("failed to read the snapshot: the index has generation {index}, but the policy has {policy}")]
    Generation {
        /// Generation in the index.
        index: u64,
        /// Generation in the policy.
        policy: u64,
    },
}

/// A policy as the chunks contain it, compressed.
#[derive(Clone, Debug)]
pub struct CompressedPolicy {
    digest: Digest,
    bytes: Vec<u8>,
}

impl CompressedPolicy {
    /// Compresses a policy; fails if it does not fit into a snapshot.
    pub fn new(encoded: &EncodedPolicy) -> Result<Self, SnapshotError> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&encoded.bytes).map_err(SnapshotError::Compress)?;
        let bytes = gzip.finish().map_err(SnapshotError::Compress)?;
        if bytes.len() > MAX_COMPRESSED {
            return Err(SnapshotError::TooLarge(bytes.len()));
        }
        Ok(Self { digest: encoded.digest, bytes })
    }

    /// Returns the size of all chunks in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Returns the files of a policy by name. The chunks, except the first, do not overwrite those that the previous index
/// (`before`) lists. Equal inputs give equal bytes.
pub fn write_files(
    generation: u64,
    encoded: &EncodedPolicy,
    before: Option<&SnapshotIndex>,
) -> Result<BTreeMap<String, Vec<u8>>, SnapshotError> {
    write_compressed(generation, &CompressedPolicy::new(encoded)?, before)
}

/// Returns the files of a compressed policy by name, as [`write_files`] does.
pub fn write_compressed(
    generation: u64,
    compressed: &CompressedPolicy,
    before: Option<&SnapshotIndex>,
) -> Result<BTreeMap<String, Vec<u8>>, SnapshotError> {
    let first_set_used =
        before.is_some_and(|before| before.chunks.iter().any(|number| (1..=SET_SIZE).contains(number)));
    let shift = if first_set_used { SET_SIZE } else { 0 };
    let (mut files, mut chunks) = (BTreeMap::new(), Vec::new());
    for (position, chunk) in compressed.bytes.chunks(MAX_CHUNK_BYTES).enumerate() {
        // The first chunk is in the same Secret as the index and is written together with it.
        let number = if position == 0 { 0 } else { position + shift };
        chunks.push(number);
        files.insert(chunk_name(number), chunk.to_vec());
    }
    let index = SnapshotIndex { generation, digest: compressed.digest.to_string(), chunks, encoding: Encoding::Gzip };
    let index = serde_json::to_vec(&index).map_err(SnapshotError::Index)?;
    files.insert(INDEX_FILE.to_owned(), index);
    Ok(files)
}

/// Reads and checks the index; it is enough to know the generation below which a gateway must not go.
pub fn read_index(files: &BTreeMap<String, Vec<u8>>) -> Result<SnapshotIndex, SnapshotError> {
    let bytes = files.get(INDEX_FILE).ok_or_else(|| SnapshotError::Missing(INDEX_FILE.to_owned()))?;
    if let Ok(AnyIndex { version, generation }) = serde_json::from_slice(bytes)
        && version > INDEX_VERSION
    {
        return Err(SnapshotError::LaterIndex { version, generation });
    }
    let index: SnapshotIndex = serde_json::from_slice(bytes).map_err(SnapshotError::Index)?;
    let valid_count = (1..=MAX_CHUNKS).contains(&index.chunks.len());
    if !valid_count || index.chunks.iter().any(|number| *number >= CHUNK_SLOTS) {
        return Err(SnapshotError::Chunks(index.chunks));
    }
    Ok(index)
}

/// Reads the policy from the files of a snapshot; fails unless they belong together.
pub fn read_policy(files: &BTreeMap<String, Vec<u8>>) -> Result<DecodedPolicy, SnapshotError> {
    let (index, encoded) = read_encoded(files)?;
    let decoded = codec::decode(&encoded.bytes)?;
    if decoded.policy.generation != index.generation {
        return Err(SnapshotError::Generation { index: index.generation, policy: decoded.policy.generation });
    }
    Ok(decoded)
}

/// Reads the policy from the files of a snapshot without decoding it; fails unless they belong together.
pub fn read_encoded(files: &BTreeMap<String, Vec<u8>>) -> Result<(SnapshotIndex, EncodedPolicy), SnapshotError> {
    let index = read_index(files)?;
    let SnapshotIndex { generation: _, digest, chunks, encoding: Encoding::Gzip } = index.clone();
    let mut compressed = Vec::new();
    for name in chunks.into_iter().map(chunk_name) {
        compressed.extend_from_slice(files.get(&name).ok_or(SnapshotError::Missing(name))?);
    }
    // Read one byte past the limit, to distinguish a policy of exactly the limit from a larger one.
    let limit = MAX_POLICY as u64 + 1;
    let mut bytes = Vec::new();
    GzDecoder::new(compressed.as_slice()).take(limit).read_to_end(&mut bytes).map_err(SnapshotError::Decompress)?;
    if bytes.len() > MAX_POLICY {
        return Err(SnapshotError::DecompressedTooLarge);
    }
    let encoded = EncodedPolicy { digest: Digest::of(&bytes), bytes };
    if encoded.digest != digest.parse()? {
        return Err(SnapshotError::DigestMismatch);
    }
    Ok((index, encoded))
}
