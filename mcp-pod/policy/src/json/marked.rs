//! The bytes of a string that do not stand for themselves: what lies between them is read over, and written, in long
//! stretches.

use wide::u8x16;

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Finds the bytes that do not stand in a JSON string as they are, one after the other: quotes, backslashes, and
/// control characters (RFC 8259, 7).
///
/// Blocks begin where the search began, and not behind the last find: so the processor looks at the next ones before
/// it knows what became of this one.
#[derive(Clone, Debug)]
pub(super) struct Marked<'a> {
    bytes: &'a [u8],
    /// Where the block ends that is looked at.
    end: usize,
    /// A bit for each marked byte that is left of it, the first byte's lowest.
    mask: u64,
}

impl<'a> Marked<'a> {
    /// Searches from there on.
    pub(super) const fn from(bytes: &'a [u8], start: usize) -> Self {
        Self { bytes, end: start, mask: 0 }
    }
}

impl Iterator for Marked<'_> {
    /// Where such a byte stands.
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.mask == 0 {
            let rest = self.bytes.get(self.end..)?;
            self.mask = match rest.first_chunk() {
                Some(block) => marks(block),
                None if rest.is_empty() => return None,
                None => {
                    let mut block = [b' '; BLOCK];
                    block.get_mut(..rest.len())?.copy_from_slice(rest);
                    marks(&block)
                }
            };
            self.end += BLOCK;
        }
        let at = self.end - BLOCK + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(at)
    }
}

/// A bit for each byte that is marked. Kept apart, or the compiler takes the masks to pieces to merge them with what
/// follows.
#[inline(never)]
fn marks(block: &[u8; BLOCK]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    parts.iter().rev().fold(0, |mask, part| mask << 16 | u64::from(part_marks(*part)))
}

fn part_marks(bytes: [u8; 16]) -> u32 {
    let bytes = u8x16::new(bytes);
    // The smaller of a byte and the last control character is the byte itself only if it is one.
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    let quote = bytes.simd_eq(u8x16::splat(b'"'));
    let backslash = bytes.simd_eq(u8x16::splat(b'\\'));
    (control | quote | backslash).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_marked(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    #[test]
    fn every_byte_is_told_at_every_place() {
        for length in 0..70 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    for around in [b' ', b'!', 0xff] {
                        let mut bytes = vec![around; length];
                        bytes[at] = byte;
                        let expected: &[usize] = if is_marked(byte) { &[at] } else { &[] };
                        let found: Vec<_> = Marked::from(&bytes, 0).collect();
                        assert_eq!(found, expected, "{byte:#x} at {at} of {length} in {around:#x}");
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn all_are_found_in_their_order(
            bytes in proptest::collection::vec(proptest::sample::select(&b"ab\"\\\n\x1f\x80"[..]), 0..200),
            start in 0..210_usize,
        ) {
            let expected: Vec<_> = (start..bytes.len()).filter(|at| is_marked(bytes[*at])).collect();
            proptest::prop_assert_eq!(Marked::from(&bytes, start).collect::<Vec<_>>(), expected);
        }
    }
}
