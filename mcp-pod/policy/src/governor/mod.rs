//! How often and how many at once: limits of the principal, then of the tenant, then of the server.
//!
//! A call takes from all of them or from none. A refused call takes nothing, no token and no slot, so that a caller
//! who waits as long as it is told is let in. State is keyed by UID and outlives policies: a new policy changes
//! limits, not what was used. Buckets start with one token, so a restart of the gateway is no gift.
//!
//! What takes nothing from those limits still costs the gateway something: requests that are refused, broken off or no
//! calls, and answers that their caller leaves unread ([`Governor::unread`]). A principal's share of both is fixed:
//! [`Governor::look`] refuses what exceeds it before anything of a request is read, and takes of it at once what a call
//! that is let in gives back.

mod bucket;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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
/// Requests of a principal that are not calls let through: more than clients make that list before each call and open
/// a thousand sessions at once, few enough to read and audit.
const BESIDES: Rate = Rate::new(6000, Some(3000));
/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// Bytes of answers that a principal may leave unread before its next request is refused; a single one may be larger.
const UNREAD: u64 = 16 << 20;

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
    /// Answers that were not taken yet, and their bytes.
    unread: (AtomicU64, AtomicU64),
}

#[derive(Debug, Default)]
struct State {
    /// Absent: no limit, and nothing is counted.
    bucket: Option<Bucket>,
    max_in_flight: Option<u32>,
    in_flight: u32,
    /// Absent until there was a request.
    besides: Option<Bucket>,
    /// When a refusal of what exceeds that was audited last.
    heard: Option<Tick>,
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

/// An answer that its caller has not taken yet; dropping it says that it has.
#[must_use = "dropping it says that the answer was taken"]
#[derive(Debug)]
pub struct Unread {
    principal: Arc<Counted>,
    bytes: u64,
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

    /// Whether a request of that principal (by UID) is read at all. Takes it from its share of requests that are not
    /// calls let in, until it turns out to be one.
    pub fn look(&self, now: Tick, principal: &str) -> Result<(), Denial> {
        let Some(principal) = self.principal(principal) else { return Ok(()) };
        let (answers, bytes) = &principal.unread;
        if bytes.load(Ordering::Relaxed) > UNREAD && answers.load(Ordering::Relaxed) > 1 {
            let limit = format!("this principal may leave {} MiB of answers unread", UNREAD >> 20);
            let denial = Denial::new(Reason::ConcurrencyLimited).with_limit(limit);
            return Err(Denial { retry_after: Some(SLOT_RETRY), ..denial });
        }
        let mut state = principal.lock();
        let bucket = state.besides.get_or_insert_with(|| Bucket::full(now, BESIDES));
        if let Err(retry_after) = bucket.check(now) {
            let limit = format!(
                "this principal may make {} requests a minute that are refused or are not calls, {} at once",
                BESIDES.per_minute, BESIDES.burst
            );
            return Err(Denial { retry_after, ..Denial::new(Reason::RateLimited).with_limit(limit) });
        }
        bucket.take();
        Ok(())
    }

    /// Whether a refusal by [`Self::look`] is to be audited: of each principal's, one a second.
    pub fn audible(&self, now: Tick, principal: &str) -> bool {
        let Some(principal) = self.principal(principal) else { return true };
        let mut state = principal.lock();
        let audible = state.heard.is_none_or(|heard| now.nanos().saturating_sub(heard.nanos()) >= SECOND);
        if audible {
            state.heard = Some(now);
        }
        audible
    }

    /// Counts an answer of so many bytes to that principal as not taken yet.
    pub fn unread(&self, principal: &str, bytes: u64) -> Option<Unread> {
        let principal = self.principal(principal)?;
        principal.unread.0.fetch_add(1, Ordering::Relaxed);
        principal.unread.1.fetch_add(bytes, Ordering::Relaxed);
        Some(Unread { principal, bytes })
    }

    fn principal(&self, uid: &str) -> Option<Arc<Counted>> {
        self.principals.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Lets a call of that principal on that server in, or says why not; both by UID.
    pub fn admit(&self, now: Tick, principal: &str, server: &str) -> Result<Permit, Denial> {
        let principal = self.principal(principal).ok_or(Denial::new(Reason::PrincipalUnknown))?;
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
        if let Some(besides) = &mut own.besides {
            besides.give_back();
        }
        drop((own, all));
        Ok(Permit { principal, tenant: self.tenant.clone(), server })
    }
}

impl Permit {
    /// Gives everything back, the tokens of the rates too: the call was not made, for a reason of ours.
    pub fn undo(self) {
        if let Some(besides) = &mut self.principal.lock().besides {
            besides.take();
        }
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

impl Drop for Unread {
    fn drop(&mut self) {
        self.principal.unread.0.fetch_sub(1, Ordering::Relaxed);
        self.principal.unread.1.fetch_sub(self.bytes, Ordering::Relaxed);
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
        Arc::new(Self { state: Mutex::default(), unread: <(AtomicU64, AtomicU64)>::default() })
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
