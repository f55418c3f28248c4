//! The bounds of budget periods, in UTC.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::model::Period;

impl Period {
    /// Returns the start of the period that contains `now`, and the start of the next one.
    ///
    /// At the limits of the calendar, about eight thousand years away, both are `now`.
    pub fn bounds(self, now: Timestamp) -> (Timestamp, Timestamp) {
        self.try_bounds(now).unwrap_or((now, now))
    }

    fn try_bounds(self, now: Timestamp) -> Result<(Timestamp, Timestamp), jiff::Error> {
        let civil = TimeZone::UTC.to_datetime(now);
        let date = civil.date();
        let midnight = |date: Date| TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight()));
        match self {
            Self::Hour => {
                let start = TimeZone::UTC.to_timestamp(date.at(civil.hour(), 0, 0, 0))?;
                Ok((start, start.checked_add(1.hour())?))
            }
            Self::Day => Ok((midnight(date)?, midnight(date.tomorrow()?)?)),
            Self::Week => {
                let monday = date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days())?;
                Ok((midnight(monday)?, midnight(monday.checked_add(7.days())?)?))
            }
            Self::Month => Ok((midnight(date.first_of_month())?, midnight(date.last_of_month().tomorrow()?)?)),
        }
    }

    /// Returns the name in lower case: `hour`, `day`, `week` or `month`.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Period; 4] = [Period::Hour, Period::Day, Period::Week, Period::Month];

    fn bounds(period: Period, now: &str) -> (String, String) {
        let (start, end) = period.bounds(now.parse().unwrap());
        (start.to_string(), end.to_string())
    }

    #[test]
    fn periods_are_aligned_to_utc() {
        let expected = |start: &str, end: &str| (start.to_owned(), end.to_owned());
        let now = "2026-11-22T20:59:59.999Z";
        assert_eq!(bounds(Period::Hour, now), expected("2026-11-22T20:00:00Z", "2026-11-22T21:00:00Z"));
        assert_eq!(bounds(Period::Day, now), expected("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"));
        // A Sunday: the week began on the Monday before.
        assert_eq!(bounds(Period::Week, now), expected("2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"));
        assert_eq!(bounds(Period::Month, now), expected("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"));
        assert_eq!(
            bounds(Period::Month, "2028-02-29T00:00:00Z"),
            expected("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z")
        );
        assert_eq!(
            bounds(Period::Week, "2027-01-01T12:00:00Z"),
            expected("2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z")
        );
    }

    proptest! {
        #[test]
        fn every_moment_is_in_exactly_one_period(seconds in 0..4_102_444_800_i64, period in prop::sample::select(&ALL[..])) {
            let now = Timestamp::from_second(seconds).unwrap();
            let (start, end) = period.bounds(now);
            prop_assert!(start <= now && now < end);
            prop_assert_eq!(period.bounds(start), (start, end));
            prop_assert_eq!(period.bounds(end).0, end);
        }
    }
}
