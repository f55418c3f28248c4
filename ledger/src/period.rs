//! Start and end of a budget's periods: aligned to UTC, weeks start on Monday (ISO 8601).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mcp_fleet_policy::model::Period;

/// One period, from `start` (inclusive) to `end` (exclusive), in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First second of the period.
    pub start: i64,
    /// First second of the next period.
    pub end: i64,
}

impl Span {
    /// Returns the period that contains a time; none if the calendar cannot represent it.
    pub fn containing(period: Period, unix: i64) -> Option<Self> {
        let (start, end) = period.bounds(Timestamp::from_second(unix).ok()?);
        (start < end).then_some(Self { start: start.as_second(), end: end.as_second() })
    }
}

/// Formats a time, in Unix seconds, for use in names and label values: `20261101t000000z`.
pub fn time_for_name(unix: i64) -> String {
    Timestamp::from_second(unix).map(|time| time.strftime("%Y%m%dt%H%M%Sz").to_string()).unwrap_or_default()
}

/// Parses a time as [`time_for_name`] formats it. Returns Unix seconds; none if the text is anything else.
pub fn time_from_name(text: &str) -> Option<i64> {
    let time = DateTime::strptime("%Y%m%dt%H%M%Sz", text).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(period: Period, now: &str) -> (String, String) {
        let span = Span::containing(period, now.parse::<Timestamp>().unwrap().as_second()).unwrap();
        let text = |unix| Timestamp::from_second(unix).unwrap().to_string();
        (text(span.start), text(span.end))
    }

    #[test]
    fn periods_are_aligned_to_utc() {
        let now = "2026-11-22T20:51:57Z";
        let pair = |start: &str, end: &str| (start.to_owned(), end.to_owned());
        assert_eq!(span(Period::Hour, now), pair("2026-11-22T20:00:00Z", "2026-11-22T21:00:00Z"));
        assert_eq!(span(Period::Day, now), pair("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"));
        assert_eq!(span(Period::Week, now), pair("2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"));
        assert_eq!(span(Period::Month, now), pair("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"));
        assert_eq!(span(Period::Month, "2027-12-31T23:59:59Z"), pair("2027-12-01T00:00:00Z", "2028-01-01T00:00:00Z"));
    }

    #[test]
    fn a_period_includes_its_start_and_excludes_its_end() {
        for period in [Period::Hour, Period::Day, Period::Week, Period::Month] {
            let span = Span::containing(period, 1_795_000_000).unwrap();
            assert_eq!(Span::containing(period, span.start), Some(span));
            assert_eq!(Span::containing(period, span.end - 1), Some(span));
            assert_eq!(Span::containing(period, span.end).unwrap().start, span.end);
        }
    }

    #[test]
    fn a_time_is_formatted_for_object_names() {
        let span = Span::containing(Period::Month, 1_795_000_000).unwrap();
        assert_eq!(time_for_name(span.start), "20261101t000000z");
        assert_eq!(time_from_name("20261101t000000z"), Some(span.start));
        for other in ["", "20261101", "20261101T000000Z", "20261301t000000z", "20261101t000000z-"] {
            assert_eq!(time_from_name(other), None, "{other}");
        }
    }
}
