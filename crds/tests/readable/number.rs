//! Generates the numbers that the API server admits for `type: integer`.

use proptest::prelude::*;
use serde_json::Value;

/// Generates integers from `minimum` to `maximum`, and the fractions that pass for integers.
pub(crate) fn integer(minimum: Option<f64>, maximum: Option<f64>) -> BoxedStrategy<Value> {
    // These casts saturate. The bounds of a schema are whole numbers.
    #[allow(clippy::cast_possible_truncation)]
    let (low, high) = (minimum.map_or(i64::MIN, |bound| bound as i64), maximum.map_or(i64::MAX, |bound| bound as i64));
    let special = [
        low,
        low.saturating_add(1),
        high.saturating_sub(1),
        high,
        -1,
        0,
        1,
        i64::from(i32::MIN) - 1,
        i64::from(i32::MAX) + 1,
        i64::from(u32::MAX) + 1,
        1_000_000_000,
    ];
    let special: Vec<i64> = special.into_iter().filter(|number| (low..=high).contains(number)).collect();
    let whole = prop_oneof![2 => prop::sample::select(special), 1 => low..=high];
    let within =
        move |number: f64| minimum.is_none_or(|low| number >= low) && maximum.is_none_or(|high| number <= high);
    let fraction = whole.clone().prop_map(move |number| {
        #[allow(clippy::cast_precision_loss)]
        let whole = number as f64;
        let fractions = [whole + 0.999, whole + 0.5, whole * (1.0 + 1e-9), whole.next_up()];
        let passes = |fraction: &f64| fraction.fract() != 0.0 && within(*fraction) && is_integer(*fraction);
        fractions.into_iter().find(passes).map_or(Value::from(number), Value::from)
    });
    prop_oneof![3 => whole.prop_map(Value::from), 1 => fraction].boxed()
}

/// Returns whether the API server takes a positive number for an integer: a translation of `IsFloat64AJSONInteger` in
/// github.com/go-openapi/swag, which compares with a tolerance. The number is stored as it was written.
fn is_integer(number: f64) -> bool {
    const EPSILON: f64 = 1e-9;
    const MAX: f64 = 9_007_199_254_740_991.0;
    let whole = number.trunc();
    (1.0..=MAX).contains(&number) && (number - whole) / (number + whole) < EPSILON
}
