//! A token bucket with integer arithmetic: exact at any rate.

use std::fmt;
use std::time::Duration;

use crate::tick::Tick;

/// Level of one token. A bucket of n calls a minute gains a level of n every nanosecond.
const TOKEN: u64 = 60_000_000_000;

/// Refill rate and capacity of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) per_minute: u32,
    pub(super) burst: u32,
}

impl Rate {
    /// Creates a rate. The burst defaults to a sixth of the calls per minute, and is at least one.
    pub(super) const fn new(per_minute: u32, burst: Option<u32>) -> Self {
        let burst = match burst {
            Some(burst) => burst,
            None => per_minute / 6,
        };
        Self { per_minute, burst: if burst == 0 { 1 } else { burst } }
    }

    fn capacity(self) -> u64 {
        // A larger capacity would overflow the level; no client makes that many calls at once.
        TOKEN * u64::from(self.burst.min(100_000_000))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls a minute, {} at once", self.per_minute, self.burst)
    }
}

/// A bucket's level, and when it was last refilled.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    level: u64,
    refilled: Tick,
}

impl Bucket {
    /// Creates a bucket with one token.
    pub(super) const fn new(now: Tick, rate: Rate) -> Self {
        Self { rate, level: TOKEN, refilled: now }
    }

    /// Creates a full bucket.
    pub(super) fn full(now: Tick, rate: Rate) -> Self {
        Self { rate, level: rate.capacity(), refilled: now }
    }

    /// Changes the rate; the tokens stay, up to the new capacity.
    pub(super) fn with_rate(mut self, now: Tick, rate: Rate) -> Self {
        self.refill(now);
        Self { level: self.level.min(rate.capacity()), rate, ..self }
    }

    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Checks for a token without taking it. The error is the time until the next token, or `None` if there will never
    /// be one.
    pub(super) fn check(&mut self, now: Tick) -> Result<(), Option<Duration>> {
        self.refill(now);
        let missing = TOKEN.saturating_sub(self.level);
        // A rate of zero allows no call, not even with the initial token.
        match u64::from(self.rate.per_minute) {
            0 => Err(None),
            _ if missing == 0 => Ok(()),
            per_minute => Err(Some(Duration::from_nanos(missing.div_ceil(per_minute)))),
        }
    }

    /// Returns the number of whole tokens.
    pub(super) fn tokens(&mut self, now: Tick) -> u32 {
        self.refill(now);
        if self.rate.per_minute == 0 { 0 } else { u32::try_from(self.level / TOKEN).unwrap_or(u32::MAX) }
    }

    pub(super) const fn take(&mut self) {
        self.level = self.level.saturating_sub(TOKEN);
    }

    pub(super) fn give_back(&mut self) {
        self.level = self.level.saturating_add(TOKEN).min(self.rate.capacity());
    }

    fn refill(&mut self, now: Tick) {
        let elapsed = now.nanos().saturating_sub(self.refilled.nanos());
        let gained = elapsed.saturating_mul(u64::from(self.rate.per_minute));
        self.level = self.level.saturating_add(gained).min(self.rate.capacity());
        self.refilled = self.refilled.max(now);
    }
}
