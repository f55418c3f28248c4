//! Strings: borrowed where there is no escape, found by searching rather than by looking at each character.

use std::borrow::Cow;

use super::{ParseError, Problem, Strings};

/// Reads the string whose opening quote stands before `start`; gives it and the offset behind its closing quote.
pub(super) fn read(text: &str, start: usize, strings: Strings) -> Result<(Cow<'_, str>, usize), ParseError> {
    let mut owned: Option<String> = None;
    let mut from = start;
    loop {
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        let Some(length) = memchr::memchr2(b'"', b'\\', rest) else {
            return Err(Problem::End.at(text.len()));
        };
        let end = from + length;
        let plain = text.get(from..end).ok_or(Problem::Utf8.at(from))?;
        if has_control(plain.as_bytes()) {
            return Err(Problem::ControlCharacter.at(from));
        }
        if rest.get(length) == Some(&b'"') {
            let string = match owned {
                None if strings == Strings::Checked => Cow::Borrowed(text.get(start..end).unwrap_or_default()),
                None => Cow::Borrowed(plain),
                Some(mut owned) => {
                    owned.push_str(plain);
                    Cow::Owned(owned)
                }
            };
            return Ok((string, end + 1));
        }
        let (character, length) =
            escape(text.as_bytes().get(end + 1..).unwrap_or_default()).map_err(|problem| problem.at(end))?;
        if strings == Strings::Decoded {
            let owned = owned.get_or_insert_with(String::new);
            owned.push_str(plain);
            owned.push(character);
        }
        from = end + 1 + length;
    }
}

/// Written without a way out of the loop, so that it compiles to a few wide instructions.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |found, byte| found | u8::from(*byte < 0x20)) != 0
}

/// The character of the escape whose backslash stands before `rest`, and how many bytes it takes.
fn escape(rest: &[u8]) -> Result<(char, usize), Problem> {
    let character = match rest.first().ok_or(Problem::End)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(rest),
        _ => return Err(Problem::Escape),
    };
    Ok((character, 1))
}

/// `uXXXX`, or the two halves of a surrogate pair `uXXXX\uXXXX`.
fn unicode(rest: &[u8]) -> Result<(char, usize), Problem> {
    let first = hex(rest.get(1..5))?;
    match first {
        0xD800..=0xDBFF => {
            if rest.get(5..7) != Some(b"\\u") {
                return Err(Problem::LoneSurrogate);
            }
            let second = hex(rest.get(7..11))?;
            if !(0xDC00..=0xDFFF).contains(&second) {
                return Err(Problem::LoneSurrogate);
            }
            let scalar = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            Ok((char::from_u32(scalar).ok_or(Problem::LoneSurrogate)?, 11))
        }
        scalar => Ok((char::from_u32(scalar).ok_or(Problem::LoneSurrogate)?, 5)),
    }
}

fn hex(digits: Option<&[u8]>) -> Result<u32, Problem> {
    digits.ok_or(Problem::Escape)?.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(Problem::Escape)?;
        Ok(value << 4 | digit)
    })
}
