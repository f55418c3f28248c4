//! A bound on what callers without a good token can make the gateway do.
//!
//! Verifying a signature is the dearest thing a stranger can ask for, and an answer with an audit line the next.
//! Each address has an allowance of failures; past it, tokens that are not known already are answered with 429
//! unread. Callers whose token was verified before never come here, so a flood cannot lock them out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

/// Failures an address may have at once.
const BURST: f64 = 200.0;
/// Failures an address may have in a second, in the long run.
const PER_SECOND: f64 = 20.0;
/// Addresses that are told apart; beyond that, newcomers share one allowance.
const ADDRESSES: usize = 4096;

/// Failures by address.
#[derive(Debug, Default)]
pub(crate) struct FailureLimit {
    allowances: Mutex<HashMap<Option<IpAddr>, Allowance, foldhash::fast::RandomState>>,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + elapsed * PER_SECOND).min(BURST);
        self.at = now;
    }
}

impl FailureLimit {
    /// Whether that address may have another unknown token looked at.
    pub(crate) fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let mut allowances = self.allowances.lock();
        let key = slot(&allowances, address);
        allowances.get_mut(&key).is_none_or(|allowance| {
            allowance.refill(now);
            allowance.left >= 1.0
        })
    }

    /// Notes a failure of that address.
    pub(crate) fn failed(&self, address: IpAddr, now: Instant) {
        let mut allowances = self.allowances.lock();
        if allowances.len() >= ADDRESSES {
            allowances.retain(|_, allowance| {
                allowance.refill(now);
                allowance.left < BURST
            });
        }
        let key = slot(&allowances, address);
        let allowance = allowances.entry(key).or_insert(Allowance { left: BURST, at: now });
        allowance.refill(now);
        allowance.left = (allowance.left - 1.0).max(0.0);
    }
}

/// The address itself while there is room to tell addresses apart.
fn slot(
    allowances: &HashMap<Option<IpAddr>, Allowance, foldhash::fast::RandomState>,
    address: IpAddr,
) -> Option<IpAddr> {
    (allowances.len() < ADDRESSES || allowances.contains_key(&Some(address))).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn an_address_that_fails_too_often_is_not_looked_at_until_it_has_waited() {
        let (flood, now) = (FailureLimit::default(), Instant::now());
        for _ in 0..200 {
            assert!(flood.admits(address(1), now));
            flood.failed(address(1), now);
        }
        assert!(!flood.admits(address(1), now));
        assert!(flood.admits(address(2), now), "another address pays for it");
        assert!(flood.admits(address(1), now + Duration::from_millis(60)));
    }

    #[test]
    fn the_table_stays_bounded_when_every_failure_has_a_new_address() {
        let (flood, now) = (FailureLimit::default(), Instant::now());
        for number in 0..100_000 {
            flood.failed(address(number), now);
        }
        assert!(flood.allowances.lock().len() <= ADDRESSES + 1);
        assert!(!flood.admits(address(200_000), now), "newcomers beyond the table have no allowance of their own");
    }
}
