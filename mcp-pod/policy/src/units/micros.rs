//! Amounts of money: decimal strings for users, integer micro-units internally.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{TextForm, UnitError};

/// Form of an amount: at most [`Micros::MAX`], with at most six decimals.
pub(super) static FORM: TextForm = TextForm::new(r"^((0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?|1000000000(\.0{1,6})?)$", 17);
/// Form of a currency code.
pub(super) static CURRENCY: TextForm = TextForm::new("^[A-Z]{3}$", 3);

/// An amount of money in millionths of the tenant's currency.
///
/// Users write it as a decimal string with at most six decimals (`"0.001"`, `"500.00"`), at most `1000000000`, never as
/// a float. All arithmetic is checked or saturating: an overflow can refuse a call, but never wrap around to a small
/// amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Micros(u64);

impl Micros {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// The largest amount that has a text form: 10^9 units of the currency.
    pub const MAX: Self = Self(1_000_000_000_000_000);

    /// Creates an amount from millionths.
    pub const fn new(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the amount in millionths.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the sum, or the largest `u64` on overflow.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns the difference, or zero if it would be negative.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl FromStr for Micros {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || {
            UnitError::new(
                text,
                "an amount of money: a decimal string with at most six decimals, such as \"0.001\", up to \"1000000000\"",
            )
        };
        if !FORM.admits(text) {
            return Err(error());
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| error())?;
        Ok(Self(whole * 1_000_000 + fraction))
    }
}

impl TryFrom<String> for Micros {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

/// Writes the amount, or [`Micros::MAX`] if it is larger: a status that says more could not be stored.
impl From<Micros> for String {
    fn from(amount: Micros) -> Self {
        amount.min(Micros::MAX).to_string()
    }
}

/// An ISO 4217 currency code: three capital letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(String);

impl Currency {
    /// Returns the code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Currency {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if CURRENCY.admits(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(UnitError::new(text, "an ISO 4217 currency code, such as USD"))
    }
}

impl TryFrom<String> for Currency {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_survives_a_round_trip_through_its_text_form() {
        for text in ["0", "0.001", "500", "3.37", "1000000000", "0.000001"] {
            let amount: Micros = text.parse().unwrap();
            assert_eq!(amount.to_string(), text);
        }
        assert_eq!("500.00".parse::<Micros>().unwrap().get(), 500_000_000);
    }

    #[test]
    fn an_ambiguous_or_invalid_amount_is_refused() {
        for text in
            ["", "-1", "+1", "01", "1.", ".5", "1e3", "0.0000001", "1,5", " 1", "10000000000", "1000000000.000001"]
        {
            assert!(text.parse::<Micros>().is_err(), "{text:?} was accepted");
        }
    }
}
