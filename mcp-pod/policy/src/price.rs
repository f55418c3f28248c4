//! Prices that a server states in its results: the most is reserved before the call, and what the result says is charged.

use crate::json::Value;
use crate::units::{Micros, TextForm};

/// Form of a pointer to a value within `structuredContent`.
pub static POINTER: TextForm = TextForm::new("^(/([^/~]|~[01])*)+$", 256);

/// A price that the result of the call states. [`crate::model::Tool::price`] is the most that a call costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultPrice {
    /// Where the result has the price.
    pub pointer: Pointer,
    /// What a call costs at least: the tenant's lowest price of the tool. A server that understates its price cannot go
    /// below it.
    pub minimum: Micros,
}

impl ResultPrice {
    /// Returns what a call costs whose result is this object: the number at the pointer, within the limits.
    ///
    /// Without a number there, it costs the maximum. A negative number counts as zero, and what is smaller than a millionth
    /// is rounded up.
    pub fn of(&self, result: &Value<'_>, maximum: Micros) -> Micros {
        let stated = result.get("structuredContent").and_then(|content| self.pointer.find(content)).and_then(micros);
        stated.map_or(maximum, |stated| stated.max(self.minimum).min(maximum))
    }
}

/// A JSON Pointer (RFC 6901) to a value below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: Box<str>,
    /// The reference tokens, without escapes.
    tokens: Box<[Box<str>]>,
}

impl Pointer {
    /// Parses a pointer; none if it has another form than [`POINTER`].
    pub fn parse(text: &str) -> Option<Self> {
        if !POINTER.admits(text) {
            return None;
        }
        let token = |token: &str| token.replace("~1", "/").replace("~0", "~").into();
        Some(Self { text: text.into(), tokens: text.split('/').skip(1).map(token).collect() })
    }

    /// Returns the text form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn find<'v, 'a>(&self, value: &'v Value<'a>) -> Option<&'v Value<'a>> {
        self.tokens.iter().try_fold(value, |value, token| match value {
            Value::Array(items) => {
                let is_index = **token == *"0" || !token.starts_with(['0', '+']);
                items.get(token.parse::<usize>().ok().filter(|_| is_index)?)
            }
            value => value.get(token),
        })
    }
}

/// Returns a number of units of the currency in millionths, rounded up, and zero if it is negative; none if the value is not
/// a number.
fn micros(value: &Value<'_>) -> Option<Micros> {
    /// More than any maximum.
    const TOO_MUCH: u64 = u64::MAX / 1_000_000;
    match value {
        Value::Integer(units) => {
            let units = u64::try_from(*units).unwrap_or(0);
            Some(Micros::new(units.min(TOO_MUCH) * 1_000_000))
        }
        Value::Number(number) if *number <= 0.0 => Some(Micros::ZERO),
        Value::Number(number) => {
            // The shortest decimal form is what the server wrote. A multiplication would round, and not always up.
            let text = number.to_string();
            let (units, decimals) = text.split_once('.').unwrap_or((&text, ""));
            // No u64: more than any maximum.
            let units = units.parse::<u64>().map_or(TOO_MUCH, |units| units.min(TOO_MUCH));
            let (kept, rest) = decimals.split_at_checked(6).unwrap_or((decimals, ""));
            let kept: u64 = format!("{kept:0<6}").parse().unwrap_or(0);
            let up = u64::from(rest.bytes().any(|digit| digit != b'0'));
            Some(Micros::new((units * 1_000_000).saturating_add(kept + up)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::{Limits, parse};

    const MAX: Micros = Micros::new(2_000_000);

    fn cost(pointer: &str, minimum: u64, result: &str) -> u64 {
        let pointer = Pointer::parse(pointer).expect("a pointer");
        let value = parse(result.as_bytes(), &Limits::PASS_THROUGH).expect("JSON");
        ResultPrice { pointer, minimum: Micros::new(minimum) }.of(&value, MAX).get()
    }

    #[test]
    fn a_call_costs_what_its_result_says_at_most_the_maximum() {
        let with = |number: &str| cost("/cost", 0, &format!(r#"{{"structuredContent":{{"cost":{number}}}}}"#));
        for (number, expected) in [
            ("0", 0),
            ("1", 1_000_000),
            ("2", 2_000_000),
            ("3", 2_000_000),
            ("0.0123", 12_300),
            ("0.1", 100_000),
            ("1.000001", 1_000_001),
            // Rounded up.
            ("0.0000001", 1),
            ("0.1000001", 100_001),
            ("1e-300", 1),
            // Never below zero.
            ("-1", 0),
            ("-0.5", 0),
            ("-0.0", 0),
            // Larger than any integer.
            ("1e300", 2_000_000),
            ("9007199254740991", 2_000_000),
            ("18446744073709551616", 2_000_000),
            // No numbers.
            ("\"0.1\"", 2_000_000),
            ("null", 2_000_000),
            ("true", 2_000_000),
            ("{}", 2_000_000),
            ("[0]", 2_000_000),
        ] {
            assert_eq!(with(number), expected, "{number}");
        }
    }

    #[test]
    fn without_a_number_at_the_pointer_a_call_costs_the_maximum() {
        for result in [
            "{}",
            r#"{"cost":0}"#,
            r#"{"structuredContent":0}"#,
            r#"{"structuredContent":null}"#,
            r#"{"structuredContent":{"Cost":0}}"#,
            r#"{"structuredContent":{"usage":{"cost":0}}}"#,
            r#"{"content":[{"type":"text","text":"{\"cost\":0}"}],"isError":true}"#,
        ] {
            assert_eq!(cost("/cost", 0, result), 2_000_000, "{result}");
        }
    }

    #[test]
    fn a_pointer_follows_rfc_6901() {
        let result = r#"{"structuredContent":{"a/b":1e-6,"m~n":2e-6,"":3e-6," ":4e-6,"items":[5e-6,{"c":6e-6}],"0":7e-6,"~1":8e-6}}"#;
        for (pointer, expected) in [
            ("/a~1b", 1),
            ("/m~0n", 2),
            ("/", 3),
            ("/ ", 4),
            ("/items/0", 5),
            ("/items/1/c", 6),
            ("/0", 7),
            ("/~01", 8),
            // Not an index.
            ("/items/00", 2_000_000),
            ("/items/+0", 2_000_000),
            ("/items/-", 2_000_000),
            ("/items/2", 2_000_000),
            ("/items/99999999999999999999", 2_000_000),
        ] {
            assert_eq!(cost(pointer, 0, result), expected, "{pointer}");
        }
        for wrong in ["", "cost", "/a~b", "/a~2", "/~", "#/cost", &format!("/{}", "x".repeat(256))] {
            assert_eq!(Pointer::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_server_that_understates_its_price_does_not_go_below_the_minimum() {
        let with = |number: &str| cost("/cost", 500, &format!(r#"{{"structuredContent":{{"cost":{number}}}}}"#));
        assert_eq!((with("0"), with("-3"), with("0.0006"), with("9")), (500, 500, 600, 2_000_000));
    }

    proptest! {
        #[test]
        fn every_amount_in_millionths_is_charged_exactly(amount in 0..=2_000_000_u64) {
            let text = format!(r#"{{"structuredContent":{{"cost":{}}}}}"#, Micros::new(amount));
            prop_assert_eq!(cost("/cost", 0, &text), amount);
        }
    }
}
