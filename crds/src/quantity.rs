//! Kubernetes quantities: their schema, and their values as numbers, to compare and to add them.

use std::borrow::Cow;

use mcp_fleet_policy::units::TextForm;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Form of a quantity that Kubernetes reads and that is not negative, such as `500m`, `1.5Gi` or `1e3`.
static QUANTITY: TextForm =
    TextForm::new(r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$", 32);

/// Schema of a `Quantity`: an integer or a string. The type itself reads any number and any string.
#[derive(Debug)]
pub(crate) struct QuantitySchema;

impl JsonSchema for QuantitySchema {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Quantity, such as 500m or 256Mi.",
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "pattern": QUANTITY.pattern,
            "maxLength": QUANTITY.max_length,
        })
    }
}

/// Returns a quantity in billionths, the smallest unit that a quantity can have; none if the text is no quantity, or one
/// too large for the calculation.
///
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub fn billionths(text: &str) -> Option<i128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    if let Some(power) = binary_exponent(suffix) {
        let scaled = digits.checked_mul(1_000_000_000)?.checked_mul(1 << power)?;
        return Some(scaled / 10_i128.checked_pow(fraction.len().try_into().ok()?)?);
    }
    let exponent = decimal_exponent(suffix)?.checked_add(9)?.checked_sub(decimals)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    if exponent < 0 { Some(power.map_or(0, |power| digits / power)) } else { digits.checked_mul(power?) }
}

fn binary_exponent(suffix: &str) -> Option<u32> {
    let unit = suffix.strip_suffix('i')?;
    let position = ["K", "M", "G", "T", "P", "E"].iter().position(|known| *known == unit)?;
    u32::try_from(position + 1).ok().map(|position| position * 10)
}

fn decimal_exponent(suffix: &str) -> Option<i32> {
    let exponent = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
    };
    Some(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_quantity_is_read() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1_000_000_000),
            ("+1", 1_000_000_000),
            ("500m", 500_000_000),
            (".5", 500_000_000),
            ("0.5", 500_000_000),
            ("250u", 250_000),
            ("7n", 7),
            ("1e3", 1000 * 1_000_000_000),
            ("1E-3", 1_000_000),
            ("1.5Ki", 1536 * 1_000_000_000),
            ("2G", 2_000_000_000 * 1_000_000_000),
            ("1E", 1_000_000_000_000_000_000 * 1_000_000_000),
            ("1e-30", 0),
        ] {
            assert_eq!(billionths(text), Some(expected), "{text}");
        }
        for text in ["", ".", "gateway", "1x", "1Xi", "1e", "--1", "1e99"] {
            assert_eq!(billionths(text), None, "{text}");
        }
    }
}
