//! The answer to a call that policy refuses: the reason, the limit that was met, and what to do next.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use crate::json;
use crate::reason::Reason;

/// Why a call is refused, as the caller learns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Machine-readable reason.
    pub reason: Reason,
    /// The argument concerned, by its name in the policy (`filter.path`, `paths[]`); never text from the caller.
    pub argument: Option<String>,
    /// The limit that was met, as a sentence without a full stop. It contains names from the caller only through
    /// [`echo`].
    pub limit: Option<String>,
    /// Time after which trying again can help.
    pub retry_after: Option<Duration>,
    /// When the limit resets, in Unix seconds.
    pub resets_at: Option<i64>,
}

impl Denial {
    /// Creates a denial with only a reason.
    pub const fn new(reason: Reason) -> Self {
        Self { reason, argument: None, limit: None, retry_after: None, resets_at: None }
    }

    /// Sets the limit that was met.
    #[must_use]
    pub fn with_limit(mut self, limit: impl Into<String>) -> Self {
        self.limit = Some(limit.into());
        self
    }

    /// Returns the text for a model, which sees nothing else of the denial.
    pub fn text(&self) -> String {
        let mut text = format!("Refused ({}).", self.reason.as_str());
        if let Some(limit) = &self.limit {
            text.push(' ');
            let mut characters = limit.chars();
            text.extend(characters.next().map(|first| first.to_ascii_uppercase()));
            text.push_str(characters.as_str());
            text.push('.');
        }
        match (self.resets_at(), self.retry_after) {
            (Some(at), _) => text.extend([" Resets at ", &at, "."]),
            (None, Some(after)) => text.extend([" Try again in ", &duration(after), "."]),
            (None, None) => {}
        }
        text.push(' ');
        text.push_str(self.reason.hint());
        text
    }

    /// Appends the denial as data: the JSON object in `_meta["mcp-fleet.dev/denial"]`.
    pub fn write_data(&self, out: &mut Vec<u8>) {
        let text = |name: &str, value: &str, out: &mut Vec<u8>| {
            out.push(b',');
            json::write_str(name, out);
            out.push(b':');
            json::write_str(value, out);
        };
        out.extend_from_slice(b"{\"reason\":");
        json::write_str(self.reason.as_str(), out);
        if let Some(argument) = &self.argument {
            text("argument", argument, out);
        }
        if let Some(limit) = &self.limit {
            text("limit", limit, out);
        }
        if let Some(after) = self.retry_after {
            // Writing to a vector cannot fail.
            drop(write!(out, ",\"retryAfterMs\":{}", after.as_nanos().div_ceil(MILLISECOND)));
        }
        if let Some(at) = self.resets_at() {
            text("resetsAt", &at, out);
        }
        text("hint", self.reason.hint(), out);
        out.push(b'}');
    }

    /// Returns the reset time in RFC 3339.
    fn resets_at(&self) -> Option<String> {
        Timestamp::from_second(self.resets_at?).ok().map(|at| at.to_string())
    }
}

/// One millisecond in nanoseconds.
const MILLISECOND: u128 = 1_000_000;

/// Returns a waiting time in whole seconds, rounded up.
pub const fn ceil_seconds(time: Duration) -> u128 {
    time.as_nanos().div_ceil(1000 * MILLISECOND)
}

/// Formats a waiting time, rounded up: milliseconds below one second, otherwise whole seconds.
fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{} ms", time.as_nanos().div_ceil(MILLISECOND).max(1));
    }
    format!("{} s", ceil_seconds(time))
}

/// Escapes a name from a caller for a text or an audit line: at most 64 characters of printable ASCII, everything else
/// escaped.
pub fn escape_name(name: &str) -> Cow<'_, str> {
    const MAX_LENGTH: usize = 64;
    let plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'`' | b'"' | b'<' | b'>') || byte == b' ';
    if name.len() <= MAX_LENGTH && name.bytes().all(plain) {
        return Cow::Borrowed(name);
    }
    let mut escaped = String::with_capacity(MAX_LENGTH + 1);
    for character in name.chars() {
        let piece: String = match u8::try_from(character) {
            Ok(byte) if plain(byte) => character.into(),
            _ => character.escape_unicode().collect(),
        };
        if escaped.len() + piece.len() > MAX_LENGTH - 3 {
            escaped.push_str("...");
            break;
        }
        escaped.push_str(&piece);
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial() -> Denial {
        Denial {
            reason: Reason::BudgetExhausted,
            argument: None,
            limit: Some("budget \"daily\" allows 5 USD a day".into()),
            retry_after: Some(Duration::from_millis(1_001)),
            resets_at: Some(1_795_305_600),
        }
    }

    #[test]
    fn the_text_states_reason_limit_reset_and_next_step() {
        assert_eq!(
            denial().text(),
            "Refused (budget_exhausted). Budget \"daily\" allows 5 USD a day. Resets at 2026-11-22T00:00:00Z. \
             Stop calling priced tools until the budget resets, or ask its owner to raise it."
        );
    }

    #[test]
    fn a_waiting_time_is_rounded_up() {
        let text = |after| Denial { retry_after: Some(after), ..Denial::new(Reason::RateLimited) }.text();
        assert!(text(Duration::from_millis(1_001)).contains("Try again in 2 s."));
        assert!(text(Duration::from_nanos(1_000_000_001)).contains("Try again in 2 s."));
        assert!(text(Duration::from_nanos(1_000_001)).contains("Try again in 2 ms."));
    }

    #[test]
    fn the_data_states_the_same_as_the_text() {
        let mut out = Vec::new();
        Denial { retry_after: Some(Duration::from_nanos(1)), ..Denial::new(Reason::RateLimited) }.write_data(&mut out);
        assert!(String::from_utf8(out).unwrap().contains("\"retryAfterMs\":1,"));

        let mut out = Vec::new();
        denial().write_data(&mut out);
        let data: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(data["reason"], "budget_exhausted");
        assert_eq!(data["limit"], "budget \"daily\" allows 5 USD a day");
        assert_eq!(data["retryAfterMs"], 1_001);
        assert_eq!(data["resetsAt"], "2026-11-22T00:00:00Z");
        assert_eq!(data["hint"], Reason::BudgetExhausted.hint());
    }

    #[test]
    fn a_name_from_a_caller_is_shortened_and_escaped() {
        assert_eq!(escape_name("limit"), "limit");
        assert_eq!(escape_name("a\nb"), r"a\u{a}b");
        assert_eq!(escape_name("`x`"), r"\u{60}x\u{60}");
        assert_eq!(escape_name("\u{202e}"), r"\u{202e}");
        let long = escape_name(&"é".repeat(500)).into_owned();
        assert!(long.len() <= 64 && long.is_ascii() && long.ends_with("..."), "{long}");
    }
}
