//! The form in which the operator keeps the last report of a tool server: compressed with gzip (RFC 1952), of limited size.
//!
//! A report comes from a tool server, and lies in a Secret that an administrator may have edited. So whoever reads a kept one
//! checks everything again.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Bytes of a digest: BLAKE3 of the report, uncompressed.
pub const DIGEST_BYTES: usize = 32;
/// Bytes of the largest report, uncompressed.
pub const MAX_REPORT: usize = 4 << 20;
/// Bytes of the largest report that is kept, compressed. A Secret has room for 1 MiB.
pub const MAX_COMPRESSED: usize = 256 << 10;

/// Why a kept report cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is larger than a kept report can be.
    #[error("failed to read a kept report: it has {0} compressed bytes, more than {MAX_COMPRESSED}")]
    CompressedTooLarge(usize),
    /// It is not compressed with gzip.
    #[error("failed to decompress a kept report")]
    Decompress(#[source] std::io::Error),
    /// It is larger than a report can be.
    #[error("failed to read a kept report: it has more than {MAX_REPORT} bytes")]
    TooLarge,
}

/// Compresses a report; `None` if it is too large to be kept.
pub fn compress(report: &[u8]) -> Option<Vec<u8>> {
    // Reports are compressed where calls are served.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(report).ok()?;
    let mut compressed = gzip.finish().ok()?;
    compressed.shrink_to_fit();
    (compressed.len() <= MAX_COMPRESSED).then_some(compressed)
}

/// Decompresses a kept report. Does not check what is in it.
pub fn decompress(compressed: &[u8]) -> Result<Vec<u8>, ReportError> {
    if compressed.len() > MAX_COMPRESSED {
        return Err(ReportError::CompressedTooLarge(compressed.len()));
    }
    let mut report = Vec::new();
    // One byte more, to distinguish a report of exactly the limit from a larger one.
    GzDecoder::new(compressed).take(MAX_REPORT as u64 + 1).read_to_end(&mut report).map_err(ReportError::Decompress)?;
    if report.len() > MAX_REPORT { Err(ReportError::TooLarge) } else { Ok(report) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns bytes that do not compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn a_report_is_kept_if_it_is_small_when_compressed() {
        let largest = vec![b' '; MAX_REPORT];
        assert_eq!(decompress(&compress(&largest).unwrap()).unwrap(), largest);
        assert!(compress(&noise(MAX_COMPRESSED)).is_none());
        let small = noise(MAX_COMPRESSED - 1024);
        assert_eq!(decompress(&compress(&small).unwrap()).unwrap(), small);
    }

    #[test]
    fn what_is_larger_than_a_report_is_not_decompressed() {
        let bomb = compress(&vec![b' '; MAX_REPORT + 1]).unwrap();
        assert!(matches!(decompress(&bomb), Err(ReportError::TooLarge)));
        assert!(matches!(decompress(&noise(MAX_COMPRESSED + 1)), Err(ReportError::CompressedTooLarge(_))));
        assert!(matches!(decompress(b"{}"), Err(ReportError::Decompress(_))));
    }
}
