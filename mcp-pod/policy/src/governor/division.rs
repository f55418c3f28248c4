//! Limits of the tenant and of its servers, divided among the gateways that share the tenant's principals. Each gateway applies
//! its share of a limit, and says how much it could use.

use std::sync::PoisonError;
use std::time::Duration;

use foldhash::HashMap;

use super::bucket::Rate;
use super::{Governor, Limiter};
use crate::reason::Reason;
use crate::tick::Tick;

/// A limit that several gateways apply together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SharedLimit {
    /// Calls at once of the tenant: its rate is divided as its burst is, so that each part is worth whole calls.
    TenantRate,
    /// Calls of the tenant in flight.
    TenantConcurrency,
    /// Calls in flight of the server with this UID.
    ServerConcurrency(String),
}

/// What a gateway says about one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The limit, as the policy has it.
    pub limit: u32,
    /// The part of it by which this gateway acts.
    pub share: u32,
    /// How much is in use. Nothing of a rate is.
    pub used: u32,
    /// How much could be used.
    pub wanted: u32,
}

/// Shortest time over which demands are counted. What was asked for in less says little. Somewhat less than the time between two
/// beats, which is not always the same.
const WINDOW: Duration = Duration::from_millis(900);

/// Time between two beats, for which what is asked for counts if the time that has passed says too little.
const BEAT: Duration = Duration::from_secs(1);

/// What was last counted.
#[derive(Debug, Default)]
pub(super) struct Reported {
    at: Option<Tick>,
    wanted: HashMap<SharedLimit, u32>,
}

/// Shares of limits. A limit that is not in it has a share of zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Division(HashMap<SharedLimit, u32>);

impl FromIterator<(SharedLimit, u32)> for Division {
    fn from_iter<I: IntoIterator<Item = (SharedLimit, u32)>>(shares: I) -> Self {
        Self(shares.into_iter().collect())
    }
}

/// How shares differ from those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redivided {
    /// One of them is smaller, and another gateway may wait for that.
    Less,
    /// None of them is smaller.
    More,
}

impl Division {
    /// Returns whether a share is smaller than before.
    fn is_less(&self, before: &Self) -> bool {
        before.0.iter().any(|(limit, share)| self.share(limit) < *share)
    }

    /// Returns the share of a limit.
    pub(super) fn share(&self, limit: &SharedLimit) -> u32 {
        self.0.get(limit).copied().unwrap_or(0)
    }
}

/// One limit on the number of calls in flight, and the share of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub(super) limit: u32,
    pub(super) share: u32,
}

impl Part {
    pub(super) fn new(limit: u32, share: Option<u32>) -> Self {
        Self { limit, share: share.unwrap_or(limit).min(limit) }
    }
}

impl Rate {
    /// Returns the part of a rate whose burst is so many calls. A part of zero admits nothing.
    fn part(self, burst: u32) -> Self {
        let burst = burst.min(self.burst);
        let per_minute = u64::from(self.per_minute) * u64::from(burst) / u64::from(self.burst.max(1));
        Self { per_minute: u32::try_from(per_minute).unwrap_or(u32::MAX), burst }
    }
}

impl Governor {
    /// Applies these shares of the limits of the tenant and its servers from now on; all of each limit if none are given. What
    /// is in use stays so. Returns how these shares differ from those before; none if they do not.
    pub fn divide(&self, now: Tick, division: Option<Division>) -> Option<Redivided> {
        let mut current = self.division.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == division {
            return None;
        }
        let is_less = division.as_ref().is_some_and(|next| current.as_ref().is_none_or(|before| next.is_less(before)));
        *current = division;
        let division = current.as_ref();
        self.tenant.divide(now, division);
        for (uid, slots) in &*self.servers.read().unwrap_or_else(PoisonError::into_inner) {
            slots.divide(division.map(|division| division.share(&SharedLimit::ServerConcurrency(uid.clone()))));
        }
        Some(if is_less { Redivided::Less } else { Redivided::More })
    }

    /// Returns what this gateway could use of each limit that gateways share: what was asked for in the last second or longer
    /// counts.
    pub fn demands(&self, now: Tick) -> Vec<(SharedLimit, Demand)> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let since = reported.at.map_or(BEAT, |at| now.since(at));
        let window = (since >= WINDOW).then_some(since);
        let mut demands = self.tenant.demands(window);
        for (uid, slots) in &*self.servers.read().unwrap_or_else(PoisonError::into_inner) {
            demands.push((SharedLimit::ServerConcurrency(uid.clone()), slots.demand(window.is_some())));
        }
        if window.is_some() {
            let wanted = demands.iter().map(|(limit, demand)| (limit.clone(), demand.wanted)).collect();
            *reported = Reported { at: Some(now), wanted };
        } else {
            for (limit, demand) in &mut demands {
                let before = reported.wanted.get(limit).copied().unwrap_or(0);
                demand.wanted = demand.wanted.max(before).min(demand.limit);
            }
        }
        demands
    }

    /// Returns whether this gateway acts by shares.
    pub fn is_divided(&self) -> bool {
        self.division.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Returns whether this gateway has less than the equal part of one of so many gateways of the limit for which a call was refused:
    /// of a server, by UID, or of a built-in tool. False for limits that are not shared.
    pub fn lacks_share(&self, refused: Reason, server_uid: Option<&str>, gateways: u32) -> bool {
        let division = self.division.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(division) = &*division else { return false };
        let (limit, all) = match refused {
            // Without calls per minute, there is no burst either.
            Reason::TenantRateLimited => {
                let rate = self.tenant.lock().rate.filter(|rate| rate.per_minute > 0);
                (SharedLimit::TenantRate, rate.map(|rate| rate.burst))
            }
            Reason::TenantConcurrencyLimited => (SharedLimit::TenantConcurrency, self.tenant.lock().max_in_flight),
            Reason::ServerConcurrencyLimited => {
                let Some(uid) = server_uid else { return false };
                let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
                (SharedLimit::ServerConcurrency(uid.to_owned()), servers.get(uid).map(|slots| slots.limit()))
            }
            _ => return false,
        };
        all.is_some_and(|all| all > 0 && division.share(&limit) < all.checked_div(gateways).unwrap_or(0).max(1))
    }
}

impl Limiter {
    /// Sets the shares of the limits of the tenant.
    pub(super) fn divide(&self, now: Tick, division: Option<&Division>) {
        let mut state = self.lock();
        let share = |limit: &SharedLimit| division.map(|division| division.share(limit));
        state.share_of_burst = share(&SharedLimit::TenantRate);
        state.share_in_flight = share(&SharedLimit::TenantConcurrency);
        state.apply_rate(now);
    }

    /// Returns the demands of this time; if none is given, of the time so far.
    fn demands(&self, window: Option<Duration>) -> Vec<(SharedLimit, Demand)> {
        let mut state = self.lock();
        let (asked, refused) = match window {
            Some(_) => (std::mem::take(&mut state.asked), std::mem::take(&mut state.refused)),
            // It is counted again when the time is over.
            None => (state.asked, state.refused),
        };
        let window = window.unwrap_or(BEAT);
        let mut demands = Vec::new();
        if let Some(rate) = state.rate {
            let Part { limit, share } = Part::new(rate.burst, state.share_of_burst);
            let a_minute = u128::from(asked) * 60_000 / window.as_millis().max(1);
            let wanted = (a_minute * u128::from(limit)).div_ceil(u128::from(rate.per_minute.max(1)));
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(limit);
            demands.push((SharedLimit::TenantRate, Demand { limit, share, used: 0, wanted }));
        }
        if let Some(max) = state.max_in_flight {
            let Part { limit, share } = Part::new(max, state.share_in_flight);
            let wanted = state.in_flight.saturating_add(refused).min(limit);
            demands.push((SharedLimit::TenantConcurrency, Demand { limit, share, used: state.in_flight, wanted }));
        }
        demands
    }
}

impl super::State {
    /// Gives the bucket the share of the rate.
    pub(super) fn apply_rate(&mut self, now: Tick) {
        let rate = self.rate.map(|rate| self.share_of_burst.map_or(rate, |burst| rate.part(burst)));
        self.bucket = rate.map(|rate| match self.bucket.take() {
            Some(bucket) => bucket.with_rate(now, rate),
            // A part without a call at once has no token.
            None => super::Bucket::new(now, rate).with_rate(now, rate),
        });
    }

    /// Returns how many calls may be in flight.
    pub(super) fn may_be_in_flight(&self) -> Option<u32> {
        self.max_in_flight.map(|max| Part::new(max, self.share_in_flight).share)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Counts;
    use super::*;
    use crate::model::TenantPolicy;
    use crate::testing;

    const SECOND: Duration = Duration::from_secs(1);

    fn governor(change: impl FnOnce(&mut TenantPolicy)) -> Governor {
        let mut policy = testing::policy();
        policy.principals[0].limits.calls_per_minute = None;
        policy.principals[0].limits.max_concurrent_calls = None;
        change(&mut policy);
        let governor = Governor::new();
        governor.apply(Tick::ZERO, &policy);
        governor
    }

    fn server() -> SharedLimit {
        SharedLimit::ServerConcurrency("s-files".into())
    }

    fn demand(governor: &Governor, limit: &SharedLimit) -> Demand {
        demand_at(governor, limit, Tick::ZERO)
    }

    fn demand_at(governor: &Governor, limit: &SharedLimit, now: Tick) -> Demand {
        governor.demands(now).into_iter().find(|(known, _)| known == limit).unwrap().1
    }

    fn admit_all(governor: &Governor, now: Tick) -> (Vec<super::super::Permit>, Reason) {
        let mut permits = Vec::new();
        loop {
            match governor.admit(now, "p-coder", "s-files") {
                Ok(permit) => permits.push(permit),
                Err(denial) => return (permits, denial.reason),
            }
            assert!(permits.len() < 1000);
        }
    }

    #[test]
    fn a_share_of_the_calls_in_flight_is_applied() {
        for (limit, reason) in [
            (SharedLimit::TenantConcurrency, Reason::TenantConcurrencyLimited),
            (server(), Reason::ServerConcurrencyLimited),
        ] {
            let governor = governor(|policy| {
                policy.principals.truncate(1);
                policy.servers[0].limits.max_concurrent_calls = 12;
                policy.traffic.max_concurrent_calls = Some(12);
            });
            let rest = [SharedLimit::TenantConcurrency, server()].map(|other| (other, 12));
            let with = |share| rest.iter().cloned().chain([(limit.clone(), share)]).collect::<Division>();
            governor.divide(Tick::ZERO, Some(with(3)));
            let (permits, why) = admit_all(&governor, Tick::ZERO);
            assert_eq!((permits.len(), why), (3, reason));
            let asked = demand(&governor, &limit);
            assert_eq!((asked.limit, asked.share, asked.used), (12, 3, 3));
            assert!(asked.wanted > 3, "{asked:?}");
            // A smaller share stops no call.
            governor.divide(Tick::ZERO, Some(with(1)));
            assert_eq!(demand(&governor, &limit).used, 3);
            drop(permits);
            assert_eq!(admit_all(&governor, Tick::ZERO).0.len(), 1);
            // One of twelve is an equal part for twelve gateways, and not for six, whatever is left of it.
            assert!(!governor.lacks_share(reason, Some("s-files"), 12));
            assert!(governor.lacks_share(reason, Some("s-files"), 6));
            assert!(!governor.lacks_share(Reason::ConcurrencyLimited, Some("s-files"), 6));
            governor.divide(Tick::ZERO, Some(with(0)));
            assert_eq!(admit_all(&governor, Tick::ZERO).0.len(), 0);
            assert!(governor.lacks_share(reason, Some("s-files"), 100));
            governor.divide(Tick::ZERO, None);
            assert!(!governor.lacks_share(reason, Some("s-files"), 1));
            assert_eq!(admit_all(&governor, Tick::ZERO).0.len(), 12);
        }
    }

    #[test]
    fn a_call_that_asks_again_is_one_call() {
        let governor = governor(|policy| policy.traffic.max_concurrent_calls = Some(10));
        let none = [(SharedLimit::TenantConcurrency, 0), (server(), 10)];
        governor.divide(Tick::ZERO, Some(Division::from_iter(none)));
        for counts in [Counts::Once, Counts::Already, Counts::Already] {
            let refused = governor.admit_as(Tick::ZERO, "p-coder", "s-files", counts).unwrap_err();
            assert_eq!(refused.reason, Reason::TenantConcurrencyLimited);
        }
        assert_eq!(demand(&governor, &SharedLimit::TenantConcurrency).wanted, 1);
    }

    #[test]
    fn a_share_of_a_rate_is_applied_and_a_larger_one_is_not_filled() {
        let governor = governor(|policy| {
            policy.principals.truncate(1);
            policy.servers[0].limits.max_concurrent_calls = 1000;
            policy.traffic.calls_per_minute = Some(600);
        });
        let divide = |now, share| {
            governor.divide(now, Some(Division::from_iter([(SharedLimit::TenantRate, share), (server(), 1000)])));
        };
        let minute = Tick::ZERO.plus(60 * SECOND);
        divide(Tick::ZERO, 10);
        // A tenth of the sixth of 600 that may be made at once.
        let (permits, why) = admit_all(&governor, minute);
        assert_eq!((permits.len(), why), (10, Reason::TenantRateLimited));
        divide(minute, 100);
        assert_eq!(admit_all(&governor, minute).0.len(), 0, "no tokens come with the share");
        assert_eq!(admit_all(&governor, minute.plus(SECOND)).0.len(), 10);
        // Nothing of it.
        divide(minute.plus(SECOND), 0);
        assert_eq!(admit_all(&governor, minute.plus(100 * SECOND)).0.len(), 0);
    }

    #[test]
    fn what_is_asked_for_a_second_is_wanted_for_a_minute() {
        let governor = governor(|policy| policy.traffic.calls_per_minute = Some(600));
        governor.divide(Tick::ZERO, Some(Division::from_iter([(SharedLimit::TenantRate, 10), (server(), 16)])));
        for _ in 0..5 {
            let _ = governor.admit(Tick::ZERO, "p-coder", "s-files");
        }
        let wanted = |now| demand_at(&governor, &SharedLimit::TenantRate, now).wanted;
        assert_eq!(wanted(Tick::ZERO), 50, "half of the rate");
        assert_eq!(wanted(Tick::ZERO.plus(SECOND / 2)), 50, "too short a time to count");
        assert_eq!(wanted(Tick::ZERO.plus(SECOND)), 0);
    }

    #[test]
    fn what_was_asked_for_a_moment_ago_is_wanted_at_once() {
        let governor = governor(|policy| policy.traffic.calls_per_minute = Some(600));
        governor.divide(Tick::ZERO, Some(Division::default()));
        let wanted = |now, limit: &SharedLimit| demand_at(&governor, limit, now).wanted;
        assert_eq!(wanted(Tick::ZERO, &SharedLimit::TenantRate), 0);
        let _ = governor.admit(Tick::ZERO, "p-coder", "s-files");
        for now in [Tick::ZERO, Tick::ZERO.plus(SECOND / 2), Tick::ZERO.plus(SECOND)] {
            assert_eq!(wanted(now, &SharedLimit::TenantRate), 10, "a call a second is a tenth of the rate");
        }
        assert_eq!(wanted(Tick::ZERO.plus(2 * SECOND), &SharedLimit::TenantRate), 0);
    }

    #[test]
    fn only_a_smaller_share_is_less() {
        let governor = governor(|_| {});
        let divide =
            |shares: &[(SharedLimit, u32)]| governor.divide(Tick::ZERO, Some(shares.iter().cloned().collect()));
        assert_eq!(divide(&[(server(), 2)]), Some(Redivided::Less), "of all");
        assert_eq!(divide(&[(server(), 2)]), None);
        assert_eq!(divide(&[(server(), 3)]), Some(Redivided::More));
        assert_eq!(divide(&[(server(), 1), (SharedLimit::TenantRate, 5)]), Some(Redivided::Less));
        assert_eq!(divide(&[]), Some(Redivided::Less));
        assert_eq!(governor.divide(Tick::ZERO, None), Some(Redivided::More));
    }

    #[test]
    fn a_new_policy_keeps_the_shares() {
        let governor = governor(|_| {});
        governor.divide(Tick::ZERO, Some(Division::from_iter([(server(), 2)])));
        let mut policy = testing::policy();
        policy.servers[0].limits.max_concurrent_calls = 8;
        governor.apply(Tick::ZERO, &policy);
        let asked = demand(&governor, &server());
        assert_eq!((asked.limit, asked.share), (8, 2));
    }
}
