//! Sizes in bytes, written as Kubernetes quantities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{TextForm, UnitError};

/// Form of a size. Ten digits of the largest suffix fit into a `u64`.
pub(super) static FORM: TextForm = TextForm::new("^[0-9]{1,10}(Ki|Mi|Gi|k|M|G)?$", 12);

/// A number of bytes, written as a Kubernetes quantity without a fraction: `256Ki`, `4Mi`, `1000`, `2M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(u64);

impl Bytes {
    /// Creates a size from bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Suffixes and their factors, larger ones first, so that sizes are written in their shortest exact form.
const SUFFIXES: [(&str, u64); 6] =
    [("Gi", 1 << 30), ("G", 1_000_000_000), ("Mi", 1 << 20), ("M", 1_000_000), ("Ki", 1 << 10), ("k", 1_000)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SUFFIXES.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match exact {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || {
            UnitError::new(
                text,
                "a size: a whole number of bytes, at most ten digits with an optional suffix Ki, Mi, Gi, k, M or G, such as \
                 256Ki",
            )
        };
        if !FORM.admits(text) {
            return Err(error());
        }
        let (number, unit) =
            SUFFIXES.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1));
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(unit).map(Self).ok_or_else(error)
    }
}

impl TryFrom<String> for Bytes {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_with_binary_and_decimal_suffixes() {
        let size = |text: &str| text.parse::<Bytes>().map(Bytes::get);
        assert_eq!(size("256Ki"), Ok(256 * 1024));
        assert_eq!(size("4Mi"), Ok(4 << 20));
        assert_eq!(size("2M"), Ok(2_000_000));
        assert_eq!(size("7"), Ok(7));
        assert!(size("1.5Mi").is_err());
        assert!(size("Mi").is_err());
        assert!(size("-1").is_err());
        assert_eq!(Bytes::new(256 * 1024).to_string(), "256Ki");
    }
}
