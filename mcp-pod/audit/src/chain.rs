//! The writing side.

use std::io::Write as _;

use ulid::Ulid;

use crate::digest::Digest;

/// The last line of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// ID of the chain.
    pub chain: Ulid,
    /// Number of the line; the first one is 1.
    pub sequence: u64,
    /// Digest of the line.
    pub digest: Digest,
}

/// The chain of one process. It has a new ID each time a process starts.
#[derive(Debug)]
pub struct Chain {
    id: Ulid,
    head: Option<Head>,
}

impl Chain {
    /// Creates a chain without lines.
    pub const fn new(id: Ulid) -> Self {
        Self { id, head: None }
    }

    /// Returns the last line; none if there is no line yet.
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// Appends a line to `out`, with its line feed. `open` is the JSON object of the line, which has fields, without the
    /// closing brace.
    pub fn link(&mut self, open: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let sequence = self.head.map_or(1, |head| head.sequence + 1);
        out.extend_from_slice(open);
        // Writing to a vector cannot fail.
        let _ = write!(out, ",\"chain\":\"{}\",\"sequence\":{sequence}", self.id);
        if let Some(Head { digest, .. }) = self.head {
            let _ = write!(out, ",\"previous\":\"{digest}\"");
        }
        out.push(b'}');
        let digest = Digest::of(out.get(start..).unwrap_or_default());
        out.push(b'\n');
        self.head = Some(Head { chain: self.id, sequence, digest });
    }
}
