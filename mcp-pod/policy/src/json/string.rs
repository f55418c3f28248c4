//! Strings: borrowed where there is no escape, found by searching rather than by looking at each character.

use std::borrow::Cow;

use super::marked::Marked;
use super::{ParseError, Problem, Strings};

/// Reads the string whose opening quote stands before `start`; gives it and the offset behind its closing quote.
pub(super) fn read(text: &str, start: usize, strings: Strings) -> Result<(Cow<'_, str>, usize), ParseError> {
    let bytes = text.as_bytes();
    let mut owned: Option<String> = None;
    let mut from = start;
    for at in Marked::from(bytes, start) {
        if at < from {
            // The second half of an escape.
            continue;
        }
        // What ends a stretch is ASCII, so none ends within a character.
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

/// What the letter behind a backslash stands for (RFC 8259, 7); 0 where it is `u`, or no escape. A table, because
/// prose is full of these, in an order that no processor guesses.
const MEANINGS: [u8; 256] = {
    let mut meanings = [0; 256];
    let pairs = *b"\"\"\\\\//b\x08f\x0cn\nr\rt\t";
    let (pairs, _) = pairs.as_chunks::<2>();
    let mut index = 0;
    while index < pairs.len() {
        let [letter, meaning] = pairs[index];
        meanings[letter as usize] = meaning;
        index += 1;
    }
    meanings
};

/// The character of the escape whose backslash stands before `rest`, and how many bytes it takes.
fn escape(rest: &[u8]) -> Result<(char, usize), Problem> {
    let letter = *rest.first().ok_or(Problem::End)?;
    match MEANINGS[usize::from(letter)] {
        0 if letter == b'u' => unicode(rest),
        0 => Err(Problem::Escape),
        meaning => Ok((char::from(meaning), 1)),
    }
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
