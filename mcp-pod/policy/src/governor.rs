//! How often and how many at once: limits of the principal, then of the tenant, then of the server.
//!
//! A call takes from all of them or from none. A refused call takes nothing, no token and no slot, so that a caller
//! who waits as long as it is told is let in. State is keyed by UID and outlives policies: a new policy changes
//! limits, not what was used. Buckets start with one token, so a restart of the gateway is no gift.

mod bucket;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use foldhash::HashMap;

use crate::denial::Denial;
use crate::model::{PrincipalLimits, ServerLimits, TenantPolicy, Traffic};
use crate::reason::Reason;
use crate::tick::Tick;

use bucket::{Bucket, Rate};

/// When a caller should ask again where no clock frees a slot.
const SLOT_RETRY: Duration = Duration::from_secs(1);

/// The limits of a tenant and of all that it has; shared by all connections.
#[derive(Debug)]
pub struct Governor {
    tenant: Arc<Counted>,
    principals: RwLock<HashMap<String, Arc<Counted>>>,
    servers: RwLock<HashMap<String, Arc<Slots>>>,
}

/// The rate and the calls in flight of a principal or the tenant.
#[derive(Debug)]
struct Counted {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Absent: no limit, and nothing is counted.
    bucket: Option<Bucket>,
    max_in_flight: Option<u32>,
    in_flight: u32,
}

/// The calls in flight of a server.
#[derive(Debug, Default)]
struct Slots {
    most: AtomicU32,
    taken: AtomicU32,
}

/// The right to make one call; dropping it frees its slots.
#[must_use = "dropping it frees the slots of the call"]
#[derive(Debug)]
pub struct Permit {
    principal: Arc<Counted>,
    tenant: Arc<Counted>,
    server: Arc<Slots>,
}

impl Default for Governor {
    fn default() -> Self {
        Self::new()
    }
}

impl Governor {
    /// Without a policy: nobody is known, so every call is refused.
    pub fn new() -> Self {
        Self { tenant: Counted::new(), principals: RwLock::default(), servers: RwLock::default() }
    }

    /// Takes the limits of a policy; what was used stays used, and what is not in the policy is forgotten.
    pub fn apply(&self, now: Tick, policy: &TenantPolicy) {
        let Traffic { calls_per_minute, max_concurrent_calls } = policy.traffic;
        self.tenant.limit(now, calls_per_minute.map(|calls| Rate::new(calls, None)), max_concurrent_calls);

        let mut principals = self.principals.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *principals);
        for principal in &policy.principals {
            let PrincipalLimits { calls_per_minute, burst, max_concurrent_calls } = principal.limits;
            let counted = known.get(&principal.uid).cloned().unwrap_or_else(Counted::new);
            counted.limit(now, calls_per_minute.map(|calls| Rate::new(calls, burst)), max_concurrent_calls);
            principals.insert(principal.uid.clone(), counted);
        }
        drop(principals);

        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *servers);
        for server in &policy.servers {
            let ServerLimits { max_concurrent_calls, timeout: _, max_request: _, max_response: _ } = server.limits;
            let slots = known.get(&server.uid).cloned().unwrap_or_default();
            slots.most.store(max_concurrent_calls, Ordering::Relaxed);
            servers.insert(server.uid.clone(), slots);
        }
    }

    /// Lets a call of that principal on that server in, or says why not; both by UID.
    pub fn admit(&self, now: Tick, principal: &str, server: &str) -> Result<Permit, Denial> {
        let principals = self.principals.read().unwrap_or_else(PoisonError::into_inner);
        let principal = principals.get(principal).cloned().ok_or(Denial::new(Reason::PrincipalUnknown))?;
        drop(principals);
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let server = servers.get(server).cloned().ok_or(Denial::new(Reason::ServerUnknown))?;
        drop(servers);

        // Always locked in this order, and held until all three have agreed.
        let mut own = principal.lock();
        own.check(now, &PRINCIPAL)?;
        let mut all = self.tenant.lock();
        all.check(now, &TENANT)?;
        server.take()?;
        own.take();
        all.take();
        drop((own, all));
        Ok(Permit { principal, tenant: self.tenant.clone(), server })
    }
}

impl Permit {
    /// Gives everything back, the tokens of the rates too: the call was not made, for a reason of ours.
    pub fn undo(self) {
        for counted in [&self.principal, &self.tenant] {
            if let Some(bucket) = &mut counted.lock().bucket {
                bucket.give_back();
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for counted in [&self.principal, &self.tenant] {
            let mut state = counted.lock();
            state.in_flight = state.in_flight.saturating_sub(1);
        }
        self.server.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose limits they are, in refusals.
struct Owner {
    name: &'static str,
    rate: Reason,
    concurrency: Reason,
}

const PRINCIPAL: Owner =
    Owner { name: "this principal", rate: Reason::RateLimited, concurrency: Reason::ConcurrencyLimited };
const TENANT: Owner =
    Owner { name: "the tenant", rate: Reason::TenantRateLimited, concurrency: Reason::TenantConcurrencyLimited };

impl Counted {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self, now: Tick, rate: Option<Rate>, max_in_flight: Option<u32>) {
        let mut state = self.lock();
        state.max_in_flight = max_in_flight;
        state.bucket = rate.map(|rate| match state.bucket.take() {
            Some(bucket) => bucket.with_rate(now, rate),
            None => Bucket::new(now, rate),
        });
    }
}

impl State {
    /// Whether one more call fits; takes nothing.
    fn check(&mut self, now: Tick, owner: &Owner) -> Result<(), Denial> {
        if let Some(bucket) = &mut self.bucket {
            bucket.check(now).map_err(|wait| Denial {
                retry_after: wait,
                ..Denial::new(owner.rate).with_limit(format!("{} may make {}", owner.name, bucket.rate()))
            })?;
        }
        match self.max_in_flight {
            Some(most) if self.in_flight >= most => Err(Denial {
                retry_after: Some(SLOT_RETRY),
                ..Denial::new(owner.concurrency).with_limit(format!("{} may have {most} calls in flight", owner.name))
            }),
            _ => Ok(()),
        }
    }

    fn take(&mut self) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take();
        }
        self.in_flight = self.in_flight.saturating_add(1);
    }
}

impl Slots {
    fn take(&self) -> Result<(), Denial> {
        let most = self.most.load(Ordering::Relaxed);
        let one_more = |taken: u32| (taken < most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).map(drop).map_err(|_| Denial {
            retry_after: Some(SLOT_RETRY),
            ..Denial::new(Reason::ServerConcurrencyLimited).with_limit(format!("the server takes {most} calls at once"))
        })
    }
}

#[cfg(test)]
mod tests;
