//! What all connections of a gateway share: the policy in force, its freshness, and what outlives a policy.
//!
//! [`legacy_calls`] lets a cancellation find its call; [`request_context`] is one request's view of all this.

mod legacy_calls;
mod record;
mod request_context;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use mcp_fleet_policy::governor::{Governor, Unread};
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::tick::Tick;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::audit::Audit;
use super::budget::Leases;
use super::metrics::Metrics;
use super::policy::{ActivePolicy, Freshness, InstallError};
use super::request::FailureLimit;
use super::upstream::{Dialer, Upstream};

pub(crate) use legacy_calls::{Cancellable, LegacyCalls, LegacySession};
pub(crate) use request_context::RequestContext;

/// What all connections of a gateway share.
#[derive(Debug)]
pub struct State {
    policy: ArcSwapOption<ActivePolicy>,
    installing: Mutex<()>,
    freshness: Freshness,
    dialer: Dialer,
    draining: AtomicBool,
    closing: CancellationToken,
    active: AtomicUsize,
    pub(crate) leases: Arc<Leases>,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    pub(crate) governor: Governor,
    pub(crate) failures: FailureLimit,
    pub(crate) legacy_calls: Arc<LegacyCalls>,
    /// Where the governor's time begins.
    pub(crate) origin: Instant,
}

/// A request in flight: the gateway does not end before it, if it can help it.
#[derive(Debug)]
pub(crate) struct ActiveRequest(Arc<State>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Bytes that are counted for as long as they exist.
struct CountedBytes {
    bytes: Bytes,
    _unread: Unread,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl State {
    /// A gateway without a policy: it refuses every call with `policy_missing`.
    pub fn new(leases: Arc<Leases>, dialer: Dialer, audit: Audit) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            policy: ArcSwapOption::empty(),
            installing: Mutex::new(()),
            freshness: Freshness::new(),
            dialer,
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            active: AtomicUsize::new(0),
            leases,
            audit,
            metrics: Metrics::new()?,
            governor: Governor::new(),
            failures: FailureLimit::default(),
            legacy_calls: Arc::default(),
            origin: Instant::now(),
        }))
    }

    /// Puts a policy into force. Calls that have been decided keep the decision they got.
    ///
    /// The same generation again changes nothing; a lower one is refused. Does not make the policy fresh: only
    /// [`Self::mark_fresh`] does.
    pub fn install(&self, policy: TenantPolicy) -> Result<(), InstallError> {
        let _turn = self.installing.lock();
        let before = self.policy.load_full();
        let current = before.as_ref().map_or(0, |before| before.tenant_policy().generation);
        if policy.generation < current {
            return Err(InstallError::Older { offered: policy.generation, current });
        }
        if policy.generation == current {
            return Ok(());
        }
        let active = ActivePolicy::new(policy, &self.dialer, before.as_deref())?;
        let active = Arc::new(active);
        let policy = active.tenant_policy();
        self.governor.apply(self.tick(), policy);
        self.metrics.enforce(&policy.tenant, policy.generation);
        info!(tenant = policy.tenant, generation = policy.generation, "policy in force");
        self.policy.store(Some(Arc::clone(&active)));
        // A call that comes in between and is covered by a new budget is denied, not given for free.
        self.leases.apply(policy);
        Ok(())
    }

    /// Takes the leader's proof that `generation` was current `age` before now. A proof about another generation
    /// than the one in force says nothing about it and is ignored.
    pub fn mark_fresh(&self, generation: u64, age: Duration) {
        if generation != 0 && generation == self.generation() {
            self.freshness.prove(Instant::now(), age);
        }
    }

    /// The policy in force.
    pub fn active_policy(&self) -> Option<Arc<ActivePolicy>> {
        self.policy.load_full()
    }

    /// The generation in force; 0 if there is none.
    pub fn generation(&self) -> u64 {
        self.policy.load().as_ref().map_or(0, |policy| policy.tenant_policy().generation)
    }

    /// How old the last proof of freshness is; absent if there never was one.
    pub fn policy_age(&self) -> Option<Duration> {
        self.freshness.age(Instant::now())
    }

    /// Whether new calls should come here: there is a policy, it is fresh, and the gateway is not draining.
    pub fn ready(&self) -> bool {
        let fresh = match (self.policy.load().as_ref(), self.policy_age()) {
            (Some(policy), Some(age)) => age <= policy.tenant_policy().stale_after.read,
            _ => false,
        };
        fresh && !self.draining.load(Ordering::Acquire)
    }

    /// Stops being ready, for good; still serves.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Takes no more requests: connections end after what they are doing.
    pub fn close(&self) {
        self.drain();
        self.closing.cancel();
    }

    /// Cancelled by [`Self::close`].
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Enters a request.
    pub(crate) fn enter(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::AcqRel);
        ActiveRequest(Arc::clone(self))
    }

    /// Requests and calls in flight.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Everything that is counted.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The governor's time.
    pub(crate) fn tick(&self) -> Tick {
        Tick::from_elapsed(self.origin.elapsed())
    }

    /// Bytes for that principal (by UID), counted as unread until the transport has taken the last of them.
    pub(crate) fn unread(&self, principal: &str, bytes: Bytes) -> Bytes {
        match self.governor.unread(principal, bytes.len() as u64) {
            Some(unread) => Bytes::from_owner(CountedBytes { bytes, _unread: unread }),
            None => bytes,
        }
    }

    /// What has to be done now and then: closes connections that nobody used for long.
    pub(crate) fn tidy(&self) {
        if let Some(policy) = self.active_policy() {
            policy.upstreams().for_each(|upstream| Upstream::prune(upstream));
        }
    }
}
