//! The canonical form of RFC 8785 (JCS), for digests that others can compute too.

use std::io::Write as _;

use super::{Members, Value};

/// Appends the value in its canonical form: compact, members sorted by name, numbers as ECMAScript writes them.
pub fn write_canonical(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null | Value::Bool(_) | Value::Integer(_) => super::write(value, out),
        Value::Number(number) => write_number(*number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (index, (name, item)) in sorted(members).into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_canonical(item, out);
            }
            out.push(b'}');
        }
    }
}

/// Returns the members in the order of the UTF-16 code units of their names.
fn sorted<'m>(members: &'m Members<'_>) -> Vec<(&'m str, &'m Value<'m>)> {
    let mut sorted: Vec<_> = members.iter().map(|(name, item)| (name.as_ref(), item)).collect();
    sorted.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    sorted
}

/// Appends a number as `Number.prototype.toString` of ECMAScript writes it: its shortest digits, with an exponent if the
/// first or last digit is far from the point.
fn write_number(number: f64, out: &mut Vec<u8>) {
    if number == 0.0 {
        return out.push(b'0');
    }
    // `-d.ddde±x`, with the fewest digits that identify the double.
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let digits = mantissa.replace('.', "");
    let (first, rest) = digits.split_at(1);
    // Position of the point, counted from the first digit.
    let point = exponent + 1;
    let written = match usize::try_from(point) {
        Ok(point) if point >= digits.len() && point <= 21 => format!("{digits}{}", "0".repeat(point - digits.len())),
        Ok(point) if point > 0 && point < digits.len() => {
            let (whole, fraction) = digits.split_at(point);
            format!("{whole}.{fraction}")
        }
        _ if (-5..=0).contains(&point) => {
            format!("0.{}{digits}", "0".repeat(usize::try_from(-point).unwrap_or_default()))
        }
        _ => format!("{first}{}{rest}e{exponent:+}", if rest.is_empty() { "" } else { "." }),
    };
    // Writing to a vector cannot fail.
    drop(write!(out, "{sign}{written}"));
}

/// Appends a string; unlike [`super::write_str`], with the short escapes of backspace and form feed.
fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for part in text.split_inclusive(['\u{8}', '\u{c}']) {
        let (plain, escape) = match part.strip_suffix('\u{8}') {
            Some(plain) => (plain, &b"\\b"[..]),
            None => part.strip_suffix('\u{c}').map_or((part, &b""[..]), |plain| (plain, b"\\f")),
        };
        let mut quoted = Vec::new();
        super::write_str(plain, &mut quoted);
        out.extend_from_slice(quoted.get(1..quoted.len() - 1).unwrap_or_default());
        out.extend_from_slice(escape);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::json::{Limits, parse};

    fn canonical(text: &str) -> String {
        let mut out = Vec::new();
        write_canonical(&parse(text.as_bytes(), &Limits::RESULT).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        // RFC 8785, 3.2.2 and appendix B.
        for (text, expected) in [
            ("-0", "0"),
            ("-0.0", "0"),
            ("0.0", "0"),
            ("1.0", "1"),
            ("4.50", "4.5"),
            ("-2.25", "-2.25"),
            ("2e-3", "0.002"),
            ("1e-6", "0.000001"),
            ("1.5e-7", "1.5e-7"),
            ("0.000000000000000000000000001", "1e-27"),
            ("333333333.33333329", "333333333.3333333"),
            ("9007199254740992", "9007199254740992"),
            ("295147905179352830000", "295147905179352830000"),
            ("1e20", "100000000000000000000"),
            ("1E21", "1e+21"),
            ("1E30", "1e+30"),
            ("-1.7976931348623157e308", "-1.7976931348623157e+308"),
            ("5e-324", "5e-324"),
            ("9.999999999999997e22", "9.999999999999997e+22"),
            ("0.000001234", "0.000001234"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn strings_and_names_are_written_as_in_the_rfc() {
        let text = r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/\b\f\t\r\u007f""#;
        assert_eq!(canonical(text), "\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\\b\\f\\t\\r\u{7f}\"");
        let names = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7,"\b":8}"#;
        let expected = "{\"\\b\":8,\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}";
        assert_eq!(canonical(names), expected);
    }
}
