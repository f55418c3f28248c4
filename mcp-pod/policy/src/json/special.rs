//! Finds the bytes of a string that need special treatment, so that the runs between them are read and written whole.

use wide::u8x16;

/// Bytes examined in one step.
const BLOCK: usize = 64;

/// Iterates over the offsets of the bytes that cannot appear unescaped in a JSON string: quotes, backslashes and
/// control characters (RFC 8259, 7).
///
/// Blocks are aligned to the start of the search and do not depend on the last match, so the processor can examine the
/// next block before the current match has been handled.
#[derive(Clone, Debug)]
pub(super) struct SpecialBytes<'a> {
    bytes: &'a [u8],
    /// End of the current block.
    end: usize,
    /// One bit for each special byte of the block that was not returned yet; the lowest bit is the first byte.
    mask: u64,
}

impl<'a> SpecialBytes<'a> {
    /// Starts the search at this offset.
    pub(super) const fn from(bytes: &'a [u8], start: usize) -> Self {
        Self { bytes, end: start, mask: 0 }
    }
}

impl Iterator for SpecialBytes<'_> {
    /// Offset of a special byte.
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.mask == 0 {
            let rest = self.bytes.get(self.end..)?;
            self.mask = match rest.first_chunk() {
                Some(block) => special_mask(block),
                None if rest.is_empty() => return None,
                None => {
                    let mut block = [b' '; BLOCK];
                    block.get_mut(..rest.len())?.copy_from_slice(rest);
                    special_mask(&block)
                }
            };
            self.end += BLOCK;
        }
        let at = self.end - BLOCK + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(at)
    }
}

/// Returns one bit for each special byte of the block. Not inlined: otherwise the compiler splits the masks up to merge
/// them with the code that follows.
#[inline(never)]
fn special_mask(block: &[u8; BLOCK]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    parts.iter().rev().fold(0, |mask, part| mask << 16 | u64::from(special_mask_16(*part)))
}

fn special_mask_16(bytes: [u8; 16]) -> u32 {
    let bytes = u8x16::new(bytes);
    // min(byte, 0x1f) equals the byte exactly if the byte is a control character.
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    let quote = bytes.simd_eq(u8x16::splat(b'"'));
    let backslash = bytes.simd_eq(u8x16::splat(b'\\'));
    (control | quote | backslash).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_special(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    #[test]
    fn every_special_byte_is_found_at_every_offset() {
        for length in 0..70 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    for around in [b' ', b'!', 0xff] {
                        let mut bytes = vec![around; length];
                        bytes[at] = byte;
                        let expected: &[usize] = if is_special(byte) { &[at] } else { &[] };
                        let found: Vec<_> = SpecialBytes::from(&bytes, 0).collect();
                        assert_eq!(found, expected, "{byte:#x} at {at} of {length} in {around:#x}");
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn special_bytes_are_found_in_order(
            bytes in proptest::collection::vec(proptest::sample::select(&b"ab\"\\\n\x1f\x80"[..]), 0..200),
            start in 0..210_usize,
        ) {
            let expected: Vec<_> = (start..bytes.len()).filter(|at| is_special(bytes[*at])).collect();
            proptest::prop_assert_eq!(SpecialBytes::from(&bytes, start).collect::<Vec<_>>(), expected);
        }
    }
}
