//! Reads strings. One without escapes is borrowed; its end is found by a vectorised search instead of byte by byte.

use std::borrow::Cow;

use super::special::SpecialBytes;
use super::{ParseError, Problem, Strings};

/// Reads the string whose opening quote is just before `start`; returns it and the offset after its closing quote.
pub(super) fn read(text: &str, start: usize, strings: Strings) -> Result<(Cow<'_, str>, usize), ParseError> {
    let bytes = text.as_bytes();
    let mut owned: Option<String> = None;
    let mut from = start;
    for at in SpecialBytes::from(bytes, start) {
        if at < from {
            // Part of an escape that was already read.
            continue;
        }
        // Special bytes are ASCII, so a run between two of them never ends inside a character.
        let plain = || text.get(from..at).unwrap_or_default();
        match bytes.get(at) {
            Some(b'"') => {
                let string = match owned {
                    None => Cow::Borrowed(text.get(start..at).unwrap_or_default()),
                    Some(mut owned) => {
                        owned.push_str(plain());
                        Cow::Owned(owned)
                    }
                };
                return Ok((string, at + 1));
            }
            Some(b'\\') => {
                let rest = bytes.get(at + 1..).unwrap_or_default();
                let (character, length) = escape(rest).map_err(|problem| problem.at(at))?;
                if strings == Strings::Decoded {
                    let owned = owned.get_or_insert_with(String::new);
                    owned.push_str(plain());
                    owned.push(character);
                }
                from = at + 1 + length;
            }
            _ => return Err(Problem::ControlCharacter.at(at)),
        }
    }
    Err(Problem::End.at(text.len()))
}

/// The character for each letter after a backslash (RFC 8259, 7); 0 for `u` and for invalid escapes. It is a table,
/// because text has many escapes in an order that a branch predictor cannot guess.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let pairs = *b"\"\"\\\\//b\x08f\x0cn\nr\rt\t";
    let (pairs, _) = pairs.as_chunks::<2>();
    let mut index = 0;
    while index < pairs.len() {
        let [letter, character] = pairs[index];
        escapes[letter as usize] = character;
        index += 1;
    }
    escapes
};

/// Returns the character of the escape whose backslash is just before `rest`, and the length of the escape in bytes.
fn escape(rest: &[u8]) -> Result<(char, usize), Problem> {
    let letter = *rest.first().ok_or(Problem::End)?;
    match ESCAPES[usize::from(letter)] {
        0 if letter == b'u' => unicode(rest),
        0 => Err(Problem::Escape),
        character => Ok((char::from(character), 1)),
    }
}

/// Decodes `uXXXX`, or a surrogate pair `uXXXX\uXXXX`.
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
