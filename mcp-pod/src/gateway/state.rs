//! What all connections of a gateway share: the policy in force, its freshness, the budgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use mcp_fleet_policy::model::TenantPolicy;

use super::budget::Budgets;

/// The policy in force, ready to be looked up.
#[derive(Debug)]
pub struct Enforced {
    /// The policy as it was published.
    pub policy: TenantPolicy,
}

/// Why a policy was not installed; the one before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A gateway never goes down a generation.
    #[error("failed to install generation {offered}: generation {current} is in force")]
    Older {
        /// What was offered.
        offered: u64,
        /// What is in force.
        current: u64,
    },
}

/// What all connections of a gateway share.
#[derive(Debug)]
pub struct State {
    enforced: ArcSwapOption<Enforced>,
    freshness: Freshness,
    draining: AtomicBool,
    /// Where the money is.
    pub budgets: Arc<dyn Budgets>,
}

impl State {
    /// A gateway without a policy: it refuses every call with `policy_missing`.
    pub fn new(budgets: Arc<dyn Budgets>) -> Arc<Self> {
        Arc::new(Self {
            enforced: ArcSwapOption::empty(),
            freshness: Freshness::new(),
            draining: AtomicBool::new(false),
            budgets,
        })
    }

    /// Puts a policy into force. Calls that have been decided keep the decision they got.
    ///
    /// The same generation again changes nothing; a lower one is refused. Does not make the policy fresh: only
    /// [`Self::mark_fresh`] does.
    pub fn install(&self, policy: TenantPolicy) -> Result<(), InstallError> {
        let current = self.generation();
        if policy.generation < current {
            return Err(InstallError::Older { offered: policy.generation, current });
        }
        self.enforced.store(Some(Arc::new(Enforced { policy })));
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
    pub fn enforced(&self) -> Option<Arc<Enforced>> {
        self.enforced.load_full()
    }

    /// The generation in force; 0 if there is none.
    pub fn generation(&self) -> u64 {
        self.enforced.load().as_ref().map_or(0, |enforced| enforced.policy.generation)
    }

    /// How old the last proof of freshness is; absent if there never was one.
    pub fn policy_age(&self) -> Option<Duration> {
        self.freshness.age(Instant::now())
    }

    /// Whether new calls should come here: there is a policy, it is fresh, and the gateway is not draining.
    pub fn ready(&self) -> bool {
        let fresh = match (self.enforced.load().as_ref(), self.policy_age()) {
            (Some(enforced), Some(age)) => age <= enforced.policy.stale_after.read,
            _ => false,
        };
        fresh && !self.draining.load(Ordering::Acquire)
    }

    /// Stops being ready, for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

/// When the policy was last proved to be current.
#[derive(Debug)]
struct Freshness {
    origin: Instant,
    /// Milliseconds from `origin` to the proof, plus one; 0: never.
    proved: AtomicU64,
}

impl Freshness {
    fn new() -> Self {
        // Far enough in the past that a proof older than the process can still be written down.
        let now = Instant::now();
        Self { origin: now.checked_sub(Duration::from_secs(3600)).unwrap_or(now), proved: AtomicU64::new(0) }
    }

    fn prove(&self, now: Instant, age: Duration) {
        let proved = now.checked_sub(age).unwrap_or(self.origin).saturating_duration_since(self.origin);
        let millis = u64::try_from(proved.as_millis()).unwrap_or(u64::MAX - 1);
        // Never backwards: an older proof that arrives late takes nothing away from a newer one.
        self.proved.fetch_max(millis + 1, Ordering::AcqRel);
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        let millis = self.proved.load(Ordering::Acquire).checked_sub(1)?;
        Some(now.saturating_duration_since(self.origin + Duration::from_millis(millis)))
    }
}
