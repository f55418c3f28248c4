//! Durations in the format of the Gateway API.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{TextForm, UnitError};

/// Form of a duration (GEP-2257).
pub(super) static FORM: TextForm = TextForm::new("^([0-9]{1,5}(h|m|s|ms)){1,4}$", 28);
/// Units in milliseconds. `ms` comes before `m`, of which it is an extension.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// A duration in the format of the Gateway API (GEP-2257): one to four groups of up to five digits and a unit (`h`,
/// `m`, `s` or `ms`), such as `30s`, `1h30m` or `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window(Duration);

impl Window {
    /// The largest duration that is written. The sum of the largest groups is larger, but has no text form.
    const MAX: Self = Self::from_millis(99_999 * 3_600_000 + 59 * 60_000 + 59 * 1_000 + 999);

    /// Creates a duration from milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Creates a duration from seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns the duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Returns whole seconds, rounded up.
    pub fn ceil_secs(self) -> u64 {
        // The longest window has far fewer.
        self.get().as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        let groups = [
            (millis / 3_600_000, "h"),
            (millis / 60_000 % 60, "m"),
            (millis / 1_000 % 60, "s"),
            (millis % 1_000, "ms"),
        ];
        groups.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
    }
}

impl FromStr for Window {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new(text, "a duration such as 30s, 5m, 1h30m or 500ms");
        if !FORM.admits(text) {
            return Err(error());
        }
        let mut rest = text;
        let mut millis = 0_u64;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let (unit, tail) =
                UNITS.iter().find_map(|(suffix, unit)| Some((*unit, tail.strip_prefix(suffix)?))).ok_or_else(error)?;
            millis += number.parse::<u64>().map_err(|_| error())? * unit;
            rest = tail;
        }
        Ok(Self::from_millis(millis))
    }
}

impl TryFrom<String> for Window {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.min(Window::MAX).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_written_in_the_gateway_api_format() {
        let window = |text: &str| text.parse::<Window>().map(|window| window.get().as_millis());
        assert_eq!(window("30s"), Ok(30_000));
        assert_eq!(window("1h30m"), Ok(5_400_000));
        assert_eq!(window("500ms"), Ok(500));
        for text in ["", "30", "s", "1d", "1.5s", "-1s", "1h1m1s1ms1h", "123456s", " 1s"] {
            assert!(window(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!("90m".parse::<Window>().unwrap().to_string(), "1h30m");
    }
}
