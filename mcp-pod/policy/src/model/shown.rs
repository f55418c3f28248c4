//! What agents read about tools and arguments.

use std::fmt;
use std::str::FromStr;

/// Texts about a tool or an argument. They decide nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shown {
    /// Name for people.
    pub title: Option<String>,
    /// What it is for.
    pub description: Option<String>,
}

impl Shown {
    /// Returns the texts; `None` if there are none.
    pub fn new(title: Option<String>, description: Option<String>) -> Option<Self> {
        (title.is_some() || description.is_some()).then_some(Self { title, description })
    }
}

/// SHA-256 of the definition of a tool as its server lists it, in the canonical form of RFC 8785.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DefinitionDigest(pub [u8; 32]);

/// A text is not `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256: and 64 lower-case hexadecimal digits")]
pub struct NotADigest;

impl FromStr for DefinitionDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix("sha256:").ok_or(NotADigest)?.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NotADigest),
        };
        let mut digest = [0; 32];
        if digits.len() != 2 * digest.len() {
            return Err(NotADigest);
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for DefinitionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DefinitionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written_and_in_no_other_form() {
        let text = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(text.parse::<DefinitionDigest>().unwrap().to_string(), text);
        for wrong in ["", "sha256:", &text[1..], &text[..70], &text.to_uppercase(), &format!("{text}0")] {
            assert_eq!(wrong.parse::<DefinitionDigest>(), Err(NotADigest), "{wrong}");
        }
    }
}
