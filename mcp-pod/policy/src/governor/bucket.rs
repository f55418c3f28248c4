//! A token bucket in whole numbers: exact, and steady at any rate.

use std::fmt;
use std::time::Duration;

use crate::tick::Tick;

/// What one token weighs: a bucket of n calls a minute gains n in a nanosecond.
const TOKEN: u64 = 60_000_000_000;

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) per_minute: u32,
    pub(super) burst: u32,
}

impl Rate {
    /// Without a burst a sixth of the calls of a minute may come at once, at least one.
    pub(super) const fn new(per_minute: u32, burst: Option<u32>) -> Self {
        let burst = match burst {
            Some(burst) => burst,
            None => per_minute / 6,
        };
        Self { per_minute, burst: if burst == 0 { 1 } else { burst } }
    }

    fn capacity(self) -> u64 {
        // Above, a bucket could not be counted; nobody makes so many calls at once.
        TOKEN * u64::from(self.burst.min(100_000_000))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls a minute, {} at once", self.per_minute, self.burst)
    }
}

/// Tokens, and when they were last counted.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    level: u64,
    counted: Tick,
}

impl Bucket {
    /// With one token.
    pub(super) const fn new(now: Tick, rate: Rate) -> Self {
        Self { rate, level: TOKEN, counted: now }
    }

    /// With all it holds.
    pub(super) fn full(now: Tick, rate: Rate) -> Self {
        Self { rate, level: rate.capacity(), counted: now }
    }

    /// The same tokens under another rate, as far as they fit.
    pub(super) fn with_rate(mut self, now: Tick, rate: Rate) -> Self {
        self.refill(now);
        Self { level: self.level.min(rate.capacity()), rate, ..self }
    }

    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Whether there is a token; otherwise how long until there is, if there ever will be.
    pub(super) fn check(&mut self, now: Tick) -> Result<(), Option<Duration>> {
        self.refill(now);
        let missing = TOKEN.saturating_sub(self.level);
        // A rate of nothing is no call at all, not the one token of the start.
        match u64::from(self.rate.per_minute) {
            0 => Err(None),
            _ if missing == 0 => Ok(()),
            per_minute => Err(Some(Duration::from_nanos(missing.div_ceil(per_minute)))),
        }
    }

    pub(super) const fn take(&mut self) {
        self.level = self.level.saturating_sub(TOKEN);
    }

    pub(super) fn give_back(&mut self) {
        self.level = self.level.saturating_add(TOKEN).min(self.rate.capacity());
    }

    fn refill(&mut self, now: Tick) {
        let elapsed = now.nanos().saturating_sub(self.counted.nanos());
        let gained = elapsed.saturating_mul(u64::from(self.rate.per_minute));
        self.level = self.level.saturating_add(gained).min(self.rate.capacity());
        self.counted = self.counted.max(now);
    }
}
