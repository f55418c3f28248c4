//! A bound on the work that clients without a valid token can cause.
//!
//! The most expensive thing such a client can ask for is the verification of a signature; the next is an answer with
//! an audit line. Each address has an allowance of failures. Past it, tokens that are not cached are answered with 429
//! and not read. Callers whose token was verified before never come here, so a flood cannot lock them out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

use crate::gateway::connection::limited;

/// Failures of one address that are admitted at once.
const BURST: f64 = 200.0;
/// Failures of one address per second that are admitted in the long run.
const PER_SECOND: f64 = 20.0;
/// Addresses with an allowance each; once they are in use, new addresses share one.
const MAX_ADDRESSES: usize = 4096;

/// What each address has left of its allowance. The key `None` is the shared allowance.
#[derive(Debug, Default)]
pub(crate) struct FailureLimit {
    allowances: Mutex<HashMap<Option<IpAddr>, Allowance, foldhash::fast::RandomState>>,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    remaining: f64,
    refilled_at: Instant,
}

impl Allowance {
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        self.remaining = (self.remaining + elapsed * PER_SECOND).min(BURST);
        self.refilled_at = now;
    }
}

impl FailureLimit {
    /// Returns whether another token of the address may be verified.
    pub(crate) fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let mut allowances = self.allowances.lock();
        let key = key_of(&allowances, address);
        allowances.get_mut(&key).is_none_or(|allowance| {
            allowance.refill(now);
            allowance.remaining >= 1.0
        })
    }

    /// Counts a failure of the address.
    pub(crate) fn record(&self, address: IpAddr, now: Instant) {
        let mut allowances = self.allowances.lock();
        if allowances.len() >= MAX_ADDRESSES {
            allowances.retain(|_, allowance| {
                allowance.refill(now);
                allowance.remaining < BURST
            });
        }
        let key = key_of(&allowances, address);
        let allowance = allowances.entry(key).or_insert(Allowance { remaining: BURST, refilled_at: now });
        allowance.refill(now);
        allowance.remaining = (allowance.remaining - 1.0).max(0.0);
    }
}

/// Returns the key of an address: what it counts as, or `None` for a new one when the table is full.
fn key_of(
    allowances: &HashMap<Option<IpAddr>, Allowance, foldhash::fast::RandomState>,
    address: IpAddr,
) -> Option<IpAddr> {
    let address = limited(address);
    (allowances.len() < MAX_ADDRESSES || allowances.contains_key(&Some(address))).then_some(address)
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
    fn an_address_that_fails_too_often_is_refused_until_it_has_waited() {
        let (limit, now) = (FailureLimit::default(), Instant::now());
        for _ in 0..200 {
            assert!(limit.admits(address(1), now));
            limit.record(address(1), now);
        }
        assert!(!limit.admits(address(1), now));
        assert!(limit.admits(address(2), now), "another address is refused as well");
        assert!(limit.admits(address(1), now + Duration::from_millis(60)));
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_share_an_allowance() {
        let (limit, now) = (FailureLimit::default(), Instant::now());
        let address = |number: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | number).into());
        for number in 0..200 {
            limit.record(address(number), now);
        }
        assert!(!limit.admits(address(1000), now));
        assert!(limit.admits(address(1 << 64), now), "another network is refused as well");
    }

    #[test]
    fn the_table_stays_bounded_when_every_failure_has_a_new_address() {
        let (limit, now) = (FailureLimit::default(), Instant::now());
        for number in 0..100_000 {
            limit.record(address(number), now);
        }
        assert!(limit.allowances.lock().len() <= MAX_ADDRESSES + 1);
        assert!(!limit.admits(address(200_000), now), "addresses beyond the table share one allowance");
    }
}
