//! Reads integers as the API server admits them.
//!
//! The API server compares with a tolerance of 10^-9 whether a number is an integer, and stores it as it was written:
//! `type: integer` admits and keeps `1.000000001` and `1000000000.5`, and no other keyword refuses them. The part after
//! the point is dropped.

use serde::{Deserialize, Deserializer};
use serde_json::Number;

/// Doubles up to this are exact integers, and the API server admits no larger number with a point or an exponent.
const MAX: f64 = 9_007_199_254_740_992.0;

/// Reads a required integer.
pub(crate) fn required<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128>,
{
    whole(&Number::deserialize(deserializer)?)
}

/// Reads an integer that may be absent.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128>,
{
    Option::<Number>::deserialize(deserializer)?.as_ref().map(whole).transpose()
}

fn whole<T: TryFrom<i128>, E: serde::de::Error>(number: &Number) -> Result<T, E> {
    let fraction = || number.as_f64().filter(|number| number.abs() <= MAX).map(truncated);
    let whole = number.as_i128().or_else(fraction).and_then(|whole| T::try_from(whole).ok());
    whole.ok_or_else(|| E::custom(format_args!("{number} is out of range for an integer of this size")))
}

#[expect(clippy::cast_possible_truncation, reason = "dropping the fraction is the purpose, and the range is checked")]
const fn truncated(number: f64) -> i128 {
    number as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "required")]
        small: u32,
        #[serde(default, deserialize_with = "optional")]
        large: Option<u64>,
    }

    fn read(text: &str) -> Option<(u32, Option<u64>)> {
        serde_json::from_str::<Numbers>(text).ok().map(|Numbers { small, large }| (small, large))
    }

    #[test]
    fn an_integer_is_read_in_every_form_in_which_it_is_stored() {
        assert_eq!(read(r#"{"small": 1}"#), Some((1, None)));
        assert_eq!(read(r#"{"small": 1.000000001, "large": 1000000000.999}"#), Some((1, Some(1_000_000_000))));
        assert_eq!(read(r#"{"small": -0.0, "large": 1e3}"#), Some((0, Some(1000))));
        assert_eq!(read(r#"{"small": 0, "large": 18446744073709551615}"#), Some((0, Some(u64::MAX))));
        assert_eq!(read(r#"{"small": 0, "large": null}"#), Some((0, None)));
    }

    #[test]
    fn a_number_out_of_range_is_not_wrapped() {
        for text in [
            r#"{"small": -1}"#,
            r#"{"small": 4294967296}"#,
            r#"{"small": 4294967296.5}"#,
            r#"{"small": 0, "large": 1e300}"#,
            r#"{"small": "1"}"#,
            r#"{"small": null}"#,
            "{}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
