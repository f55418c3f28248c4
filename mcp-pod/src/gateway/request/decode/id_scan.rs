//! Finds the id of a message that is too large to be kept, while the message is read and dropped.

use memchr::memchr2;

use super::message::{Id, MAX_ID_LENGTH};

/// Longest text of a member's name or of an id that is kept, one more than that of an id with each character escaped.
const KEPT: usize = 6 * MAX_ID_LENGTH + 3;

/// What is known of a message so far. It decides nothing: whatever is found is only repeated to the client that sent it.
#[derive(Debug, Default)]
pub(crate) struct IdScan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// What the text belongs to, outside of nested values.
    part: Part,
    /// The name of the current member, and then its value if the name is `id`.
    text: Vec<u8>,
    found: Found,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Name,
    Id,
    OtherValue,
}

#[derive(Debug, Default)]
enum Found {
    #[default]
    Nothing,
    Text(Vec<u8>),
    /// More than one id, one that is too long, or no object.
    Unclear,
}

impl IdScan {
    /// Reads the next part of the message.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        loop {
            if self.in_string && !self.escaped && !self.keeps() {
                // What is too large is nearly always a string, of which nothing matters but its end.
                bytes = &bytes[memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len())..];
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if self.in_string {
                self.keep(byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match (byte, self.depth) {
                (b'"', _) => {
                    self.in_string = true;
                    self.keep(byte);
                }
                (b'{' | b'[', depth) => {
                    if depth == 0 && byte == b'[' {
                        self.found = Found::Unclear;
                    }
                    self.keep(byte);
                    self.depth += 1;
                    if depth == 0 {
                        self.text.clear();
                    }
                }
                (b'}' | b']', depth) => {
                    if depth == 1 {
                        self.end_member();
                    }
                    if depth <= 1 && byte == b']' {
                        self.found = Found::Unclear;
                    }
                    self.depth = depth.saturating_sub(1);
                }
                (b':', 1) => {
                    self.part = if self.text == b"\"id\"" { Part::Id } else { Part::OtherValue };
                    self.text.clear();
                }
                (b',', 1) => self.end_member(),
                // White space in an id is wrong, unless it is before or after it.
                (byte, _) if !byte.is_ascii_whitespace() || self.part == Part::Id => self.keep(byte),
                _ => {}
            }
        }
    }

    /// Returns the id, if the message has ended and has one.
    pub(crate) fn end(self) -> Option<Id> {
        match self.found {
            Found::Text(text) if self.depth == 0 && !self.in_string => {
                Id::of_rejected(&[b"{\"id\":", &text[..], b"}"].concat())
            }
            _ => None,
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.keeps() {
            self.text.push(byte);
        }
    }

    fn keeps(&self) -> bool {
        self.depth <= 1 && self.part != Part::OtherValue && self.text.len() < KEPT
    }

    fn end_member(&mut self) {
        if self.part == Part::Id {
            let text = std::mem::take(&mut self.text);
            let is_clear = matches!(self.found, Found::Nothing) && text.len() < KEPT;
            self.found = if is_clear { Found::Text(text) } else { Found::Unclear };
        }
        self.part = Part::Name;
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn scan(parts: &[&str]) -> Option<String> {
        let mut scan = IdScan::default();
        for part in parts {
            scan.read(part.as_bytes());
        }
        scan.end().map(|id| String::from_utf8(id.as_json().to_vec()).unwrap())
    }

    #[test]
    fn the_id_is_found_wherever_the_message_is_cut() {
        for (message, id) in [
            (r#"{"id":7,"method":"x"}"#, Some("7")),
            (r#" { "method" : "x" , "params":{"id":1,"a":["}",{"id":2}]}, "id" : "a\"},b" } "#, Some(r#""a\"},b""#)),
            (r#"{"a":"\\","id":725653563933458432}"#, Some("725653563933458432")),
            (r#"{"method":"x","params":{"id":1}}"#, None),
            (r#"{"id":1,"id":2}"#, None),
            (r#"{"id":[1]}"#, None),
            (r#"{"id":null}"#, None),
            (r#"[{"id":1}]"#, None),
            (r#"{"id":1"#, None),
            (r#"{"a":"{\"id\":1}"}"#, None),
            (r#"{"id":1}{"id":2}"#, None),
            (r#"{"id": 1 , "method":"x"}"#, Some("1")),
            (r#"{"id":1 2}"#, None),
            (r#"{"id":1]"#, None),
            ("id", None),
        ] {
            for at in 0..=message.len() {
                let (before, after) = message.split_at(at);
                assert_eq!(scan(&[before, after]).as_deref(), id, "{message} cut at {at}");
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut scan = IdScan::default();
        scan.read(b"{\"id\":\"");
        for _ in 0..100 {
            scan.read(&[b'x'; 1000]);
        }
        assert!(scan.text.len() <= KEPT);
        scan.read(b"\"}");
        assert_eq!(scan.end(), None, "an id that is too long");
        let cut = format!(r#"{{"id":{}12}}"#, " ".repeat(KEPT - 1));
        assert_eq!(self::scan(&[&cut]), None, "the end of the id is not kept");
    }
}
