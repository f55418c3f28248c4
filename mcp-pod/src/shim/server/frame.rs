//! Splits the server's output into lines, in bounded memory.
//!
//! A line longer than the limit is discarded while it streams in. Only its JSON-RPC `id` is extracted on the way, so
//! that the call fails at once instead of timing out.

use bytes::{Bytes, BytesMut};

/// Room in the buffer for one read, in bytes.
const READ_SIZE: usize = 64 * 1024;

/// One line of output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The line, without its newline.
    Line(Bytes),
    /// A line longer than the limit was discarded. Contains its id, if there was exactly one that is a plain number.
    TooLong(Option<u64>),
}

/// Assembles lines from reads of any size.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// Length of the start of the buffer that is known to contain no newline.
    scanned: usize,
    discarding: Option<Discarding>,
}

/// A line that is being discarded.
#[derive(Debug, Default)]
struct Discarding {
    scanner: IdScanner,
    length: u64,
}

impl Framer {
    /// Returns the buffer to read into, with room for one read.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_SIZE);
        &mut self.buffer
    }

    /// Returns how many bytes were discarded so far of a line that has not ended.
    pub(super) fn discarded(&self) -> u64 {
        self.discarding.as_ref().map_or(0, |discarding| discarding.length)
    }

    /// Returns the next complete line in the buffer. `limit` is in bytes and may change from call to call.
    pub(super) fn next(&mut self, limit: usize) -> Option<Frame> {
        let newline = self.buffer.get(self.scanned..).and_then(|unscanned| memchr::memchr(b'\n', unscanned));
        let Some(offset) = newline else {
            if self.discarding.is_some() || self.buffer.len() > limit {
                self.discard(self.buffer.len());
                self.scanned = 0;
            } else {
                self.scanned = self.buffer.len();
            }
            return None;
        };
        let length = self.scanned + offset;
        self.scanned = 0;
        if self.discarding.is_some() || length > limit {
            self.discard(length);
            let _newline = self.buffer.split_to(1);
            let id = self.discarding.take().and_then(|discarding| discarding.scanner.id());
            return Some(Frame::TooLong(id));
        }
        let line = self.buffer.split_to(length).freeze();
        let _newline = self.buffer.split_to(1);
        Some(Frame::Line(line))
    }

    fn discard(&mut self, length: usize) {
        let discarding = self.discarding.get_or_insert_default();
        let bytes = self.buffer.split_to(length);
        discarding.scanner.feed(&bytes);
        discarding.length += bytes.len() as u64;
    }
}

/// Returns the id of a line that is no JSON, but begins like a response. None if it may be something else.
pub(super) fn id_of_response(line: &[u8]) -> Option<u64> {
    let mut scanner = IdScanner::default();
    scanner.feed(line);
    // Requests of the server have ids of their own.
    scanner.id().filter(|_| memchr::memmem::find(line, b"\"method\"").is_none())
}

/// Finds the member `id` of the outermost object, in constant memory.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts about the position in the text")]
struct IdScanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Whether the next string is a key of the outermost object.
    key_next: bool,
    /// Inside such a key: how many of its bytes were read, and whether they match `id` so far.
    key: Option<(usize, bool)>,
    /// Whether the position is inside the value of `id`.
    in_id: bool,
    id: Option<u64>,
    /// Whether there was more than one `id`, or one that is not a plain number.
    ambiguous: bool,
}

impl IdScanner {
    fn id(&self) -> Option<u64> {
        self.id.filter(|_| !self.ambiguous)
    }

    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.in_string {
                self.inside_string(byte);
            } else {
                self.outside_string(byte);
            }
        }
    }

    fn inside_string(&mut self, byte: u8) {
        if self.escaped {
            self.escaped = false;
            return;
        }
        match byte {
            b'"' => {
                self.in_string = false;
                if let Some((2, true)) = self.key.take() {
                    self.ambiguous |= self.id.is_some();
                    self.in_id = true;
                }
            }
            b'\\' => {
                self.escaped = true;
                self.key = self.key.map(|(length, _)| (length, false));
            }
            _ => {
                self.key = self.key.map(|(length, same)| (length + 1, same && b"id".get(length) == Some(&byte)));
            }
        }
    }

    fn outside_string(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_string = true;
                self.ambiguous |= self.in_id;
                self.key = (self.depth == 1 && self.key_next).then_some((0, true));
                self.key_next = false;
            }
            b'{' | b'[' => {
                self.ambiguous |= self.in_id;
                self.depth += 1;
                self.key_next = self.depth == 1 && byte == b'{';
            }
            b'}' | b']' => {
                self.in_id = false;
                self.depth = self.depth.saturating_sub(1);
            }
            b',' if self.depth == 1 => {
                self.in_id = false;
                self.key_next = true;
            }
            b'0'..=b'9' if self.in_id => {
                let digit = u64::from(byte - b'0');
                self.id = self.id.unwrap_or(0).checked_mul(10).and_then(|id| id.checked_add(digit));
                self.ambiguous |= self.id.is_none();
            }
            b':' | b' ' | b'\t' | b'\r' => {}
            _ => self.ambiguous |= self.in_id,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn frames(input: &[u8], chunk: usize, limit: usize) -> Vec<Frame> {
        let mut framer = Framer::default();
        let mut seen = Vec::new();
        for chunk in input.chunks(chunk) {
            framer.space().extend_from_slice(chunk);
            while let Some(frame) = framer.next(limit) {
                seen.push(frame);
            }
            assert!(framer.buffer.len() <= limit + chunk.len(), "memory is bounded");
        }
        seen
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let input = b"{\"id\":1}\n\n{\"id\":2}\r\n";
        for chunk in 1..=input.len() {
            let lines = frames(input, chunk, 100);
            let expected: [&[u8]; 3] = [b"{\"id\":1}", b"", b"{\"id\":2}\r"];
            assert_eq!(lines, expected.map(|line| Frame::Line(Bytes::copy_from_slice(line))));
        }
    }

    #[test]
    fn a_long_line_is_discarded_but_its_id_is_found_anywhere_in_it() {
        let filler = "x".repeat(500);
        for (line, id) in [
            (format!(r#"{{"jsonrpc":"2.0","id":17,"result":"{filler}"}}"#), Some(17)),
            (format!(r#"{{"result":{{"id":3,"a":["{filler}\"",{{"id":4}}]}},"jsonrpc":"2.0","id": 17}}"#), Some(17)),
            (format!(r#"{{"result":"{filler},\"id\":5","jsonrpc":"2.0"}}"#), None),
            (format!(r#"{{"id":1,"id":2,"result":"{filler}"}}"#), None),
            (format!(r#"{{"id":"1","result":"{filler}"}}"#), None),
            (format!(r#"{{"id":1.5,"result":"{filler}"}}"#), None),
            (format!(r#"{{"id":-1,"result":"{filler}"}}"#), None),
            (format!(r#"{{"id":[1],"result":"{filler}"}}"#), None),
            (format!(r#"{{"id":99999999999999999999999,"result":"{filler}"}}"#), None),
            (filler.clone(), None),
        ] {
            for chunk in [1, 7, 64, 4096] {
                let input = format!("{line}\nnext\n");
                let expected = [Frame::TooLong(id), Frame::Line(Bytes::from_static(b"next"))];
                assert_eq!(frames(input.as_bytes(), chunk, 64), expected, "{line} in chunks of {chunk}");
            }
        }
    }
}
