//! The writer: compact, with exactly one form for each value.

use std::io::Write as _;
use std::ops::Range;

use super::Value;
use super::special::SpecialBytes;

/// Appends the value without white space; [`super::parse`] reads back the same value.
pub fn write(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        // Writing to a vector cannot fail.
        Value::Integer(number) => drop(write!(out, "{number}")),
        Value::Number(number) => drop(write!(out, "{number:?}")),
        Value::String(text) => write_str(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (index, (key, item)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_str(key, out);
                out.push(b':');
                write(item, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends the string with its quotes; escapes only the characters that JSON requires to be escaped.
pub fn write_str(text: &str, out: &mut Vec<u8>) {
    // Room for a few escapes, as in ordinary text; a text with more of them grows the buffer again.
    out.reserve(text.len() + text.len() / 16 + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for at in SpecialBytes::from(bytes, 0) {
        write_plain(bytes, from..at, out);
        write_escape(bytes.get(at).copied().unwrap_or_default(), out);
        from = at + 1;
    }
    out.extend_from_slice(bytes.get(from..).unwrap_or_default());
    out.push(b'"');
}

/// Appends a range of the bytes. It is usually short, and then a copy of fixed size is faster than a call to memcpy.
#[inline]
fn write_plain(bytes: &[u8], part: Range<usize>, out: &mut Vec<u8>) {
    const CHUNK: usize = 64;
    let length = part.len();
    match bytes.get(part.start..).and_then(<[u8]>::first_chunk::<CHUNK>) {
        Some(chunk) if length <= CHUNK => {
            let end = out.len() + length;
            out.extend_from_slice(chunk);
            out.truncate(end);
        }
        _ => out.extend_from_slice(bytes.get(part).unwrap_or_default()),
    }
}

/// Appends a special byte as its escape.
fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        control => {
            let digits = [HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]];
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&digits);
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}
