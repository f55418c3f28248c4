//! Reads numbers so that every parser agrees on them.
//!
//! A literal is exact if it is the shortest form of its double, or the form with 17 digits that C's `%.17g` prints. So
//! `0.1` and `0.10000000000000001` are accepted, `0.1000000000000000001` and `9007199254740993.0` are not: a reader
//! that uses decimals would see a different number than one that uses doubles.

use super::{MAX_INTEGER, Numbers, Problem, Value};

/// Significant digits that identify any double.
const MAX_DIGITS: usize = 17;
/// Significant digits that every double preserves.
const SAFE_DIGITS: usize = 15;
/// Decimal exponents below this are far from the limits of a double.
const SAFE_EXPONENT: i64 = 290;

/// Reads the number at the start of `text`; returns its value and its length in bytes.
pub(super) fn read<'a>(text: &str, numbers: Numbers) -> Result<(Value<'a>, usize), Problem> {
    let literal = Literal::scan(text.as_bytes())?;
    let digits = text.get(..literal.length).ok_or(Problem::Number)?;
    let value = if literal.is_integer { integer(digits, numbers)? } else { fraction(digits, &literal, numbers)? };
    Ok((value, literal.length))
}

fn integer<'a>(digits: &str, numbers: Numbers) -> Result<Value<'a>, Problem> {
    if digits == "-0" {
        return Ok(Value::Number(-0.0));
    }
    match digits.parse::<i64>() {
        Ok(number) if (-MAX_INTEGER..=MAX_INTEGER).contains(&number) => Ok(Value::Integer(number)),
        _ if numbers == Numbers::Exact => Err(Problem::IntegerRange),
        _ => Ok(Value::Number(double(digits)?)),
    }
}

fn fraction<'a>(digits: &str, literal: &Literal, numbers: Numbers) -> Result<Value<'a>, Problem> {
    let number = double(digits)?;
    let text = digits.as_bytes();
    let decimal = Decimal::of(text, literal);
    if numbers == Numbers::Exact {
        let decimal = decimal.ok_or(Problem::NumberPrecision)?;
        if number == 0.0 && decimal.length > 0 {
            return Err(Problem::NumberRange);
        }
        if !decimal.is_safe() && !is_exact(number, &decimal) {
            return Err(Problem::NumberPrecision);
        }
    }
    Ok(as_integer(number).map_or(Value::Number(number), Value::Integer))
}

fn double(digits: &str) -> Result<f64, Problem> {
    let number: f64 = digits.parse().map_err(|_| Problem::Number)?;
    if number.is_finite() { Ok(number) } else { Err(Problem::NumberRange) }
}

/// Returns the number as an integer, if it is one that every parser reads exactly.
fn as_integer(number: f64) -> Option<i64> {
    #[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is a double")]
    let limit = MAX_INTEGER as f64;
    let negative_zero = number == 0.0 && number.is_sign_negative();
    if number.fract() != 0.0 || number.abs() > limit || negative_zero {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "an integer within ±(2^53 - 1)")]
    Some(number as i64)
}

/// Returns whether `decimal` is `number` in its shortest form or with 17 digits.
fn is_exact(number: f64, decimal: &Decimal) -> bool {
    [format!("{number:e}"), format!("{number:.16e}")].iter().any(|text| {
        let written = Literal::scan(text.as_bytes()).ok().and_then(|literal| Decimal::of(text.as_bytes(), &literal));
        written.as_ref() == Some(decimal)
    })
}

/// The extent of a number literal and of its parts.
struct Literal {
    length: usize,
    /// End of the mantissa: sign, digits and decimal point.
    mantissa: usize,
    /// Whether the literal has neither decimal point nor exponent.
    is_integer: bool,
}

impl Literal {
    /// Scans a literal of the grammar `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?` (RFC 8259, 6).
    fn scan(text: &[u8]) -> Result<Self, Problem> {
        let digits = |from: usize| {
            let rest = text.get(from..).unwrap_or_default();
            from + rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len())
        };
        let start = usize::from(text.first() == Some(&b'-'));
        let mut end = digits(start);
        let leading_zero = text.get(start) == Some(&b'0') && end > start + 1;
        if end == start || leading_zero {
            return Err(Problem::Number);
        }
        let mut is_integer = true;
        if text.get(end) == Some(&b'.') {
            is_integer = false;
            let point = end + 1;
            end = digits(point);
            if end == point {
                return Err(Problem::Number);
            }
        }
        let mantissa = end;
        if matches!(text.get(end), Some(b'e' | b'E')) {
            is_integer = false;
            let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let exponent = end + 1 + sign;
            end = digits(exponent);
            if end == exponent {
                return Err(Problem::Number);
            }
        }
        Ok(Self { length: end, mantissa, is_integer })
    }
}

/// A number as its significant digits and the decimal exponent of the first digit.
#[derive(PartialEq, Eq)]
struct Decimal {
    digits: [u8; MAX_DIGITS],
    length: usize,
    exponent: i64,
}

impl Decimal {
    /// Reads a literal. Returns `None` if it has more significant digits than a double can distinguish; zero has none.
    fn of(text: &[u8], literal: &Literal) -> Option<Self> {
        let mut decimal = Self { digits: [0; MAX_DIGITS], length: 0, exponent: 0 };
        let (mut position, mut point, mut seen) = (0_i64, None, 0_usize);
        for byte in text.get(..literal.mantissa)? {
            match byte {
                b'-' => continue,
                b'.' => {
                    point = Some(position);
                    continue;
                }
                b'0' if seen == 0 => {}
                digit => {
                    if seen == 0 {
                        decimal.exponent = -position;
                    }
                    if *digit != b'0' {
                        *decimal.digits.get_mut(seen)? = *digit;
                        decimal.length = seen + 1;
                    }
                    seen += 1;
                }
            }
            position += 1;
        }
        if decimal.length == 0 {
            return Some(decimal);
        }
        let power = exponent(text.get(literal.mantissa..literal.length)?);
        decimal.exponent = decimal.exponent.saturating_add(point.unwrap_or(position) - 1).saturating_add(power);
        // Zeros between digits that are not zero.
        for digit in decimal.digits.iter_mut().take(decimal.length) {
            *digit = (*digit).max(b'0');
        }
        Some(decimal)
    }

    /// Returns whether the number certainly survives the conversion to a double.
    fn is_safe(&self) -> bool {
        self.length <= SAFE_DIGITS && self.exponent.abs() < SAFE_EXPONENT
    }
}

/// Returns the value of an exponent such as `e+12`; an empty text is zero, and a value that is too large saturates.
fn exponent(text: &[u8]) -> i64 {
    let negative = text.get(1) == Some(&b'-');
    let power = text
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0_i64, |power, digit| power.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -power } else { power }
}
