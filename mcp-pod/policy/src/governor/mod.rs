//! Limits the rate and the concurrency of calls: first of the principal, then of the tenant, then of the server.
//!
//! One principal may have at most half of a server's calls in flight, rounded up, if another principal holds a scope on
//! the server. So one agent that floods a server leaves room for the others.
//!
//! A call takes from all limits or from none. A refused call takes no token and no slot, so a caller that waits for
//! the given time is admitted. State is keyed by UID and outlives policies: a new policy changes the limits and keeps
//! the usage. Buckets start with one token, so that a restart of the gateway gives no caller a full burst.
//!
//! Requests that are refused, aborted or not calls take nothing from these limits but still cost the gateway resources.
//! Each principal has a fixed allowance of them. [`Governor::check_request`] takes one request from it before any part of
//! a request is read; [`Governor::admit`] gives it back if the request is an admitted call, and
//! [`Governor::give_back_request`] if another gateway has admitted it.

mod bucket;
mod division;
mod elsewhere;
mod slots;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use crate::denial::Denial;
use crate::model::{PrincipalLimits, ServerLimits, TenantLimits, TenantPolicy};
use crate::reason::Reason;
use crate::tick::Tick;

use bucket::{Bucket, Rate};
use division::Reported;
pub use division::{Demand, Division, Redivided, SharedLimit};
pub use elsewhere::{Elsewhere, InFlight};
use slots::{Shares, Slots};

/// Retry time for concurrency limits, where the time at which a slot becomes free is unknown.
const SLOT_RETRY: Duration = Duration::from_secs(1);
/// Allowance of a principal for requests that are not admitted calls: more than clients need that list the tools
/// before each call and open a thousand sessions at once, and few enough to read and audit.
const OTHER_REQUESTS: Rate = Rate::new(6000, Some(3000));

/// Whether what is asked for counts as demand: a call that waits asks again and again, and is one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// It is asked for the first time.
    Once,
    /// It was counted.
    Already,
}

/// Limits and usage of a tenant, its principals and its servers; shared by all connections.
#[derive(Debug)]
pub struct Governor {
    tenant: Arc<Limiter>,
    principals: RwLock<HashMap<String, Arc<Limiter>>>,
    servers: RwLock<HashMap<String, Arc<Slots>>>,
    /// The shares of limits that this gateway applies; none if it is the only one.
    division: Mutex<Option<Division>>,
    reported: Mutex<Reported>,
}

/// Limits and usage of one principal or of the tenant.
#[derive(Debug)]
struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` if the rate is not limited.
    rate: Option<Rate>,
    /// Of the share of the rate.
    bucket: Option<Bucket>,
    max_in_flight: Option<u32>,
    in_flight: u32,
    /// Shares of these limits; none if all of it.
    share_of_burst: Option<u32>,
    share_in_flight: Option<u32>,
    /// Calls that were asked for, and those refused for want of a place in flight, since the last report.
    asked: u32,
    refused: u32,
    /// The same by server; only counted for principals.
    shares: Shares,
    /// Allowance of requests that are not admitted calls; `None` until the first request.
    other_requests: Option<Bucket>,
}

/// What is left of a principal's own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Absent if the rate is not limited.
    pub rate: Option<RateStanding>,
    /// Calls that may be in flight; absent if that is not limited.
    pub max_in_flight: Option<u32>,
    /// Calls in flight.
    pub in_flight: u32,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStanding {
    /// Calls per minute.
    pub per_minute: u32,
    /// Calls at once.
    pub burst: u32,
    /// Calls that may be made now.
    pub left: u32,
}

/// Permission to make one call; dropping it frees the call's slots.
#[must_use = "dropping it frees the slots of the call"]
#[derive(Debug)]
pub struct Permit {
    principal: Arc<Limiter>,
    tenant: Arc<Limiter>,
    server: Arc<Slots>,
}

impl Counts {
    const fn number(self) -> u32 {
        match self {
            Self::Once => 1,
            Self::Already => 0,
        }
    }
}

impl Default for Governor {
    fn default() -> Self {
        Self::new()
    }
}

impl Governor {
    /// Creates a governor without a policy. It knows no principal, so it refuses every call.
    pub fn new() -> Self {
        let tenant = Limiter::new();
        let (principals, servers) = (RwLock::default(), RwLock::default());
        Self { tenant, principals, servers, division: Mutex::default(), reported: Mutex::default() }
    }

    /// Applies the limits of a policy. Usage is kept; principals and servers that are not in the policy are removed.
    pub fn apply(&self, now: Tick, policy: &TenantPolicy) {
        let TenantLimits { calls_per_minute, max_concurrent_calls } = policy.traffic;
        self.tenant.set_limits(now, calls_per_minute.map(|calls| Rate::new(calls, None)), max_concurrent_calls);

        let mut principals = self.principals.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *principals);
        for principal in &policy.principals {
            let PrincipalLimits { calls_per_minute, burst, max_concurrent_calls } = principal.limits;
            let limiter = known.get(&principal.uid).cloned().unwrap_or_else(Limiter::new);
            limiter.set_limits(now, calls_per_minute.map(|calls| Rate::new(calls, burst)), max_concurrent_calls);
            principals.insert(principal.uid.clone(), limiter);
        }
        drop(principals);

        // Locked in this order by all.
        let division = self.division.lock().unwrap_or_else(PoisonError::into_inner);
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *servers);
        let holders = holders(policy);
        for server in &policy.servers {
            let ServerLimits { max_concurrent_calls, timeout: _, max_request: _, max_response: _ } = server.limits;
            let slots = known.get(&server.uid).cloned().unwrap_or_default();
            slots.set_limits(max_concurrent_calls, holders.get(server.uid.as_str()).copied().unwrap_or(0));
            let share = |division: &Division| division.share(&SharedLimit::ServerConcurrency(server.uid.clone()));
            slots.divide(division.as_ref().map(share));
            servers.insert(server.uid.clone(), slots);
        }
    }

    /// Checks whether a request of this principal (by UID) may be read at all. Takes one request from the principal's
    /// allowance of requests that are not admitted calls; [`Self::admit`] gives it back.
    pub fn check_request(&self, now: Tick, principal: &str) -> Result<(), Denial> {
        let Some(principal) = self.principal(principal) else { return Ok(()) };
        let mut state = principal.lock();
        let bucket = state.other_requests.get_or_insert_with(|| Bucket::full(now, OTHER_REQUESTS));
        if let Err(retry_after) = bucket.check(now) {
            let limit = format!(
                "this principal may make {} requests a minute that are refused or are not calls, {} at once",
                OTHER_REQUESTS.per_minute, OTHER_REQUESTS.burst
            );
            return Err(Denial { retry_after, ..Denial::new(Reason::RateLimited).with_limit(limit) });
        }
        bucket.take();
        Ok(())
    }

    /// Gives back what [`Self::check_request`] took for a request of this principal (by UID), which is an admitted call at
    /// another gateway.
    pub fn give_back_request(&self, principal: &str) {
        if let Some(principal) = self.principal(principal)
            && let Some(other_requests) = &mut principal.lock().other_requests
        {
            other_requests.give_back();
        }
    }

    /// Admits a call of a built-in tool by a principal, by UID. It takes from the rates like any call, but is never in
    /// flight: an agent whose calls all hang can still see that.
    pub fn admit_built_in(&self, now: Tick, principal: &str, counts: Counts) -> Result<(), Denial> {
        let principal = self.principal(principal).ok_or(Denial::new(Reason::PrincipalUnknown))?;
        let mut principal_state = principal.lock();
        principal_state.check_rate(now, &PRINCIPAL, counts)?;
        let mut tenant_state = self.tenant.lock();
        tenant_state.check_rate(now, &TENANT, counts)?;
        for state in [&mut principal_state, &mut tenant_state] {
            if let Some(bucket) = &mut state.bucket {
                bucket.take();
            }
        }
        if let Some(other_requests) = &mut principal_state.other_requests {
            other_requests.give_back();
        }
        Ok(())
    }

    /// Returns what is left of the limits of the principal with that UID.
    pub fn standing(&self, now: Tick, principal: &str) -> Option<Standing> {
        let principal = self.principal(principal)?;
        let mut state = principal.lock();
        Some(Standing {
            rate: state.bucket.as_mut().map(|bucket| RateStanding {
                per_minute: bucket.rate().per_minute,
                burst: bucket.rate().burst,
                left: bucket.tokens(now),
            }),
            max_in_flight: state.max_in_flight,
            in_flight: state.in_flight,
        })
    }

    fn principal(&self, uid: &str) -> Option<Arc<Limiter>> {
        self.principals.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Admits a call of a principal on a server (both by UID), or returns the denial.
    pub fn admit(&self, now: Tick, principal: &str, server: &str) -> Result<Permit, Denial> {
        self.admit_as(now, principal, server, Counts::Once)
    }

    /// Admits a call that may have been refused before.
    pub fn admit_as(&self, now: Tick, principal: &str, server: &str, counts: Counts) -> Result<Permit, Denial> {
        let principal = self.principal(principal).ok_or(Denial::new(Reason::PrincipalUnknown))?;
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let server = servers.get(server).cloned().ok_or(Denial::new(Reason::ServerUnknown))?;
        drop(servers);

        // Always locked in this order, and held until all three checks have passed.
        let mut principal_state = principal.lock();
        principal_state.check(now, &PRINCIPAL, counts)?;
        let mut tenant_state = self.tenant.lock();
        tenant_state.check(now, &TENANT, counts)?;
        server.take(principal_state.shares.on(&server), counts)?;
        principal_state.take();
        principal_state.shares.add(&server);
        tenant_state.take();
        if let Some(other_requests) = &mut principal_state.other_requests {
            other_requests.give_back();
        }
        drop((principal_state, tenant_state));
        Ok(Permit { principal, tenant: self.tenant.clone(), server })
    }
}

/// Returns the number of principals that hold a scope on each server, by the server's UID.
fn holders(policy: &TenantPolicy) -> HashMap<&str, usize> {
    let mut holders = HashMap::default();
    for principal in &policy.principals {
        let servers: HashSet<&str> = principal.grants.iter().map(|grant| grant.server_uid.as_str()).collect();
        for server in servers {
            *holders.entry(server).or_default() += 1;
        }
    }
    holders
}

impl Permit {
    /// Gives back everything, including the rate tokens: the call was admitted here but refused at a later step. The
    /// request then counts against the allowance of requests that are not admitted calls.
    pub fn refund(self) {
        if let Some(other_requests) = &mut self.principal.lock().other_requests {
            other_requests.take();
        }
        for limiter in [&self.principal, &self.tenant] {
            if let Some(bucket) = &mut limiter.lock().bucket {
                bucket.give_back();
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut principal = self.principal.lock();
        principal.in_flight = principal.in_flight.saturating_sub(1);
        principal.shares.remove(&self.server);
        drop(principal);
        let mut tenant = self.tenant.lock();
        tenant.in_flight = tenant.in_flight.saturating_sub(1);
        drop(tenant);
        self.server.give_back();
    }
}

/// How denials name the owner of a limit.
struct Owner {
    name: &'static str,
    rate: Reason,
    concurrency: Reason,
}

const PRINCIPAL: Owner =
    Owner { name: "this principal", rate: Reason::RateLimited, concurrency: Reason::ConcurrencyLimited };
const TENANT: Owner =
    Owner { name: "the tenant", rate: Reason::TenantRateLimited, concurrency: Reason::TenantConcurrencyLimited };

impl Limiter {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_limits(&self, now: Tick, rate: Option<Rate>, max_in_flight: Option<u32>) {
        let mut state = self.lock();
        state.max_in_flight = max_in_flight;
        state.rate = rate;
        state.apply_rate(now);
    }
}

impl State {
    /// Checks whether one more call fits, without taking anything.
    fn check(&mut self, now: Tick, owner: &Owner, counts: Counts) -> Result<(), Denial> {
        self.check_rate(now, owner, counts)?;
        match (self.may_be_in_flight(), self.max_in_flight) {
            (Some(share), Some(max)) if self.in_flight >= share => {
                self.refused = self.refused.saturating_add(counts.number());
                Err(Denial {
                    retry_after: Some(SLOT_RETRY),
                    ..Denial::new(owner.concurrency)
                        .with_limit(format!("{} may have {max} calls in flight", owner.name))
                })
            }
            _ => Ok(()),
        }
    }

    fn check_rate(&mut self, now: Tick, owner: &Owner, counts: Counts) -> Result<(), Denial> {
        let (Some(bucket), Some(rate)) = (&mut self.bucket, self.rate) else { return Ok(()) };
        self.asked = self.asked.saturating_add(counts.number());
        bucket.check(now).map_err(|wait| Denial {
            // What is refused for want of a share can pass once there is one.
            retry_after: wait.or_else(|| (rate.per_minute > 0).then_some(SLOT_RETRY)),
            ..Denial::new(owner.rate).with_limit(format!("{} may make {rate}", owner.name))
        })
    }

    fn take(&mut self) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take();
        }
        self.in_flight = self.in_flight.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
