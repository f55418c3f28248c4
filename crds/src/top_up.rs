//! The annotation with which a person adds to a budget's limits for one period, without an edit of its spec.
//!
//! Its value names the period and the total to add, so it is a state and not a command: read any number of times, it adds
//! the same amount once, and only to that period.

use jiff::Timestamp;
use mcp_fleet_policy::model::{Period, TopUp};
use mcp_fleet_policy::units::Micros;

use crate::MCPBudgetSpec;
use crate::budget::ToppedUp;

/// Maximum length of a value, in bytes. A longer one is invalid.
pub const MAX_TOP_UP: usize = 96;
/// Maximum number of calls, as for the field `calls`.
const MAX_CALLS: u64 = 1_000_000_000_000;

/// Why the value of the annotation is not valid. Nothing changes because of such a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopUpError {
    /// The value does not have the required form.
    #[error(
        "{0} is not valid in the annotation mcp-fleet.dev/top-up; write a time in the period to top up, and amount, calls or \
         both, such as \"2026-11-26T09:30:00Z amount=5.00 calls=100\""
    )]
    Form(String),
    /// The budget has no such limit.
    #[error("{0}= tops up a limit that the budget does not have; remove it from the annotation mcp-fleet.dev/top-up")]
    NoLimit(&'static str),
}

/// Parses the value of the annotation for a budget: a time in the period to top up (RFC 3339), then `amount=` with money,
/// `calls=` with a number of calls, or both.
pub fn parse(value: &str, spec: &MCPBudgetSpec) -> Result<TopUp, TopUpError> {
    if value.len() > MAX_TOP_UP {
        return Err(TopUpError::Form(format!("a value of more than {MAX_TOP_UP} bytes")));
    }
    let invalid = |word: &str| TopUpError::Form(format!("{word:?}"));
    let mut words = value.split_ascii_whitespace();
    let at = words.next().unwrap_or_default();
    let at: Timestamp = at.parse().map_err(|_| invalid(at))?;
    let (mut amount, mut calls) = (None::<Micros>, None::<u64>);
    for word in words {
        match word.split_once('=') {
            Some(("amount", money)) if amount.is_none() => {
                amount = Some(money.parse().map_err(|_| invalid(word))?);
            }
            Some(("calls", number)) if calls.is_none() => {
                let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                calls = number.parse().ok().filter(|calls| is_plain && *calls <= MAX_CALLS);
                calls.ok_or_else(|| invalid(word))?;
            }
            _ => return Err(invalid(word)),
        }
    }
    if amount.is_none() && calls.is_none() {
        return Err(invalid(value));
    }
    if amount.is_some() && spec.amount.is_none() {
        return Err(TopUpError::NoLimit("amount"));
    }
    if calls.is_some() && spec.calls.is_none() {
        return Err(TopUpError::NoLimit("calls"));
    }
    let (start, end) = spec.period.bounds(at);
    if start == end {
        return Err(invalid(value));
    }
    Ok(TopUp { start: start.as_second(), amount: amount.unwrap_or_default(), calls: calls.unwrap_or_default() })
}

/// Describes what is added, in the form of the annotation: `amount=5 calls=100`.
pub fn describe(top_up: &ToppedUp) -> String {
    let ToppedUp { amount, calls } = top_up;
    let amount = amount.map(|amount| format!("amount={amount}"));
    let calls = calls.map(|calls| format!("calls={calls}"));
    amount.into_iter().chain(calls).collect::<Vec<_>>().join(" ")
}

/// Returns start and end of the period that a top-up is for.
pub fn bounds(top_up: &TopUp, period: Period) -> (Timestamp, Timestamp) {
    period.bounds(Timestamp::from_second(top_up.start).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: serde_json::Value) -> MCPBudgetSpec {
        serde_json::from_value(value).expect("a spec")
    }

    #[test]
    fn a_value_names_its_period_and_what_it_adds() {
        let both = spec(serde_json::json!({"period": "Day", "amount": "1", "calls": 5}));
        let start = 1_795_651_200; // 2026-11-26T00:00:00Z
        for (value, amount, calls) in [
            ("2026-11-26T09:30:00Z amount=5.00 calls=100", 5_000_000, 100),
            ("2026-11-26T00:00:00Z calls=100", 0, 100),
            ("  2026-11-25T23:59:59.5-01:00   amount=0.000001 ", 1, 0),
        ] {
            let expected = TopUp { start, amount: Micros::new(amount), calls };
            assert_eq!(parse(value, &both), Ok(expected), "{value}");
        }
    }

    #[test]
    fn any_other_value_is_refused() {
        let both = spec(serde_json::json!({"period": "Day", "amount": "1", "calls": 5}));
        let long = format!("2026-11-26T09:30:00Z{}calls=1", " ".repeat(MAX_TOP_UP));
        for value in [
            "",
            "5.00",
            "amount=5.00",
            "2026-11-26T09:30:00Z",
            "2026-11-26 amount=5",
            "2026-11-26T09:30:00Z 5.00",
            "2026-11-26T09:30:00Z amount=-5",
            "2026-11-26T09:30:00Z amount=1e3",
            "2026-11-26T09:30:00Z amount=5 amount=5",
            "2026-11-26T09:30:00Z amount=5,calls=1",
            "2026-11-26T09:30:00Z calls=+5",
            "2026-11-26T09:30:00Z calls=1.5",
            "2026-11-26T09:30:00Z calls=1000000000001",
            "2026-11-26T09:30:00Z Calls=1",
            &long,
        ] {
            assert!(matches!(parse(value, &both), Err(TopUpError::Form(_))), "{value}");
        }
        let calls = spec(serde_json::json!({"period": "Day", "calls": 5}));
        assert_eq!(parse("2026-11-26T09:30:00Z amount=5", &calls), Err(TopUpError::NoLimit("amount")));
        let money = spec(serde_json::json!({"period": "Day", "amount": "5"}));
        assert_eq!(parse("2026-11-26T09:30:00Z calls=5", &money), Err(TopUpError::NoLimit("calls")));
    }
}
