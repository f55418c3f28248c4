//! State that all connections of a gateway share: the policy in force, its freshness, and what outlives a policy.
//!
//! [`request_context`] is one request's view of it. [`hand_over`] makes sure that no call is forwarded that a newer policy
//! or the [`kill_switch`] forbids, or of a principal whose home is elsewhere by now ([`homes`]). [`record`] counts and audits
//! requests, [`legacy_calls`] lets a cancellation find its call, and [`resumable`] a client the rest of its event stream.
//! [`server_reports`] are the reports of tool servers that pass between this gateway and the operator.

mod clear;
mod hand_over;
mod homes;
mod kill_switch;
mod legacy_calls;
mod record;
mod reports;
mod request_context;
mod resumable;
mod server_reports;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use mcp_fleet_policy::breaker::Breakers;
use mcp_fleet_policy::built_in::StuckReports;
use mcp_fleet_policy::governor::{Elsewhere, Governor};
use mcp_fleet_policy::loops::Loops;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::tick::Tick;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::audit::{Audit, Floods};
use super::budget::Leases;
use super::edge::Peers;
use super::memory::Memory;
use super::metrics::Metrics;
use super::policy::{ActivePolicy, Freshness, InstallError};
use super::request::FailureLimit;
use super::upstream::Dialer;
use crate::tls::PublicNames;
use hand_over::HandOver;
use kill_switch::SharedKillSwitch;

pub(crate) use hand_over::{Admission, Held};
pub(crate) use homes::{Absence, HomeVersion, Homes, NoHome, Place};
pub(crate) use legacy_calls::{Cancellable, LegacyCalls, LegacySession};
pub(crate) use reports::{LoopReport, Reports, StuckReport};
pub(crate) use request_context::{RequestContext, Unanswered};
pub(crate) use resumable::{EventId, KeptStream, ResumableStreams};

/// State that all connections of a gateway share.
#[derive(Debug)]
pub struct State {
    policy: ArcSwapOption<ActivePolicy>,
    installing: Mutex<()>,
    hand_over: HandOver,
    freshness: Freshness,
    kill_switch: SharedKillSwitch,
    pub(crate) homes: Arc<Homes>,
    pub(crate) names: Arc<PublicNames>,
    pub(crate) peers: Peers,
    dialer: Dialer,
    draining: AtomicBool,
    closing: CancellationToken,
    active: AtomicUsize,
    pub(crate) leases: Arc<Leases>,
    pub(crate) audit: Audit,
    pub(crate) floods: Floods,
    pub(crate) metrics: Metrics,
    pub(crate) memory: Memory,
    pub(crate) governor: Governor,
    /// Calls in flight at gateways that were homes before. Locked while an answer of the leader is put into force.
    elsewhere: Mutex<Elsewhere>,
    pub(crate) breakers: Breakers,
    pub(crate) stuck: StuckReports,
    pub(crate) stuck_reports: Reports<StuckReport>,
    pub(crate) loop_reports: Reports<LoopReport>,
    pub(crate) loops: Loops,
    pub(crate) failures: FailureLimit,
    pub(crate) legacy_calls: Arc<LegacyCalls>,
    pub(crate) resumable: ResumableStreams,
    /// Zero of the clock of the governor and the loop detector.
    origin: Instant,
}

/// A request in flight, for which a closing gateway waits.
#[derive(Debug)]
pub(crate) struct ActiveRequest(Arc<State>);

impl ActiveRequest {
    /// Returns the state of the gateway that the request is in.
    pub(crate) fn state(&self) -> &State {
        &self.0
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Returns the host name of an origin that a client reaches by TLS.
fn hostname(origin: &str) -> Option<String> {
    Some(origin.strip_prefix("https://")?.to_ascii_lowercase())
}

impl State {
    /// Returns the state of a gateway without a policy, which rejects every request with `policy_missing`.
    pub fn new(
        leases: Arc<Leases>,
        dialer: Dialer,
        audit: Audit,
        memory: Memory,
        names: Arc<PublicNames>,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let homes = Arc::new(Homes::default());
        let of_metrics = Arc::clone(&homes);
        Ok(Arc::new(Self {
            policy: ArcSwapOption::empty(),
            installing: Mutex::new(()),
            hand_over: HandOver::default(),
            freshness: Freshness::new(),
            kill_switch: SharedKillSwitch::default(),
            peers: Peers::new(&dialer, &memory),
            dialer,
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            active: AtomicUsize::new(0),
            leases,
            audit,
            floods: Floods::default(),
            metrics: Metrics::new(&memory, &names, move || of_metrics.lease_left())?,
            homes,
            names,
            memory,
            governor: Governor::new(),
            elsewhere: Mutex::default(),
            breakers: Breakers::default(),
            stuck: StuckReports::default(),
            stuck_reports: Reports::default(),
            loop_reports: Reports::default(),
            loops: Loops::new(),
            failures: FailureLimit::default(),
            legacy_calls: Arc::default(),
            resumable: ResumableStreams::default(),
            origin: Instant::now(),
        }))
    }

    /// Puts a policy into force. When this returns, every call that is not yet handed to its server is decided by this
    /// policy or a newer one.
    ///
    /// The generation in force changes nothing, and a lower one is an error. Only [`Self::mark_fresh`] makes the policy
    /// fresh.
    pub fn install(self: &Arc<Self>, policy: TenantPolicy) -> Result<(), InstallError> {
        let _guard = self.installing.lock();
        let previous = self.policy.load_full();
        let current = previous.as_ref().map_or(0, |previous| previous.tenant_policy().generation);
        if policy.generation < current {
            return Err(InstallError::Older { offered: policy.generation, current });
        }
        if policy.generation == current {
            return Ok(());
        }
        let active = ActivePolicy::new(policy, &self.dialer, &self.memory, previous.as_deref())?;
        let active = Arc::new(active);
        let policy = active.tenant_policy();
        self.governor.apply(self.tick(), policy);
        self.loops.retain(policy.principals.iter().map(|principal| principal.uid.as_str()));
        self.metrics.set_generation(&policy.tenant, policy.generation);
        info!(tenant = policy.tenant, generation = policy.generation, "policy in force");
        self.policy.store(Some(Arc::clone(&active)));
        self.hand_over.wait();
        if let Some(previous) = &previous {
            clear::clear(self, previous.tenant_policy(), policy);
        }
        // Between the two steps, a call that a new budget covers is denied. It is never free.
        self.leases.apply(policy);
        // Last: who hears that a name is served may rely on its being accepted in tokens.
        self.names.set_names(policy.other_audiences.iter().filter_map(|origin| hostname(origin)).collect());
        Ok(())
    }

    /// Records the leader's proof that `generation` was current `age` before now. A proof about a generation that is not
    /// in force is ignored.
    pub fn mark_fresh(&self, generation: u64, age: Duration) {
        if generation != 0 && generation == self.generation() {
            self.freshness.prove(Instant::now(), age);
        }
    }

    /// Returns the policy in force.
    pub(crate) fn active_policy(&self) -> Option<Arc<ActivePolicy>> {
        self.policy.load_full()
    }

    /// Returns the policy in force, if it is another one than `known`.
    pub(crate) fn newer_policy(&self, known: &Arc<ActivePolicy>) -> Option<Arc<ActivePolicy>> {
        self.policy.load().as_ref().filter(|policy| !Arc::ptr_eq(policy, known)).map(Arc::clone)
    }

    /// Starts to hand a call to its server, if the policy that allowed it is still in force and fresh enough, the token has
    /// not expired, this is still the home of the principal, and the fleet is not stopped. The first write has to be over
    /// before the result is dropped.
    pub(crate) fn hand_over(&self, admission: &Admission) -> Option<Held<'_>> {
        let Admission { generation, stale_after, expires_at, home } = *admission;
        self.hand_over.begin(|| {
            let now = Instant::now();
            let fresh = self.freshness.age(now).is_some_and(|age| age <= stale_after);
            let in_force = fresh && now < expires_at && self.generation() == generation;
            in_force && self.homes.is_current(home) && !self.is_stopped()
        })
    }

    /// Returns the generation in force, or 0 without a policy.
    pub(crate) fn generation(&self) -> u64 {
        self.policy.load().as_ref().map_or(0, |policy| policy.tenant_policy().generation)
    }

    /// Returns the age of the last proof of freshness, or `None` if there never was one.
    pub(crate) fn policy_age(&self) -> Option<Duration> {
        self.freshness.age(Instant::now())
    }

    /// Returns whether the gateway should get new calls: it has a fresh policy and is not draining.
    pub fn ready(&self) -> bool {
        let fresh = match (self.policy.load().as_ref(), self.policy_age()) {
            (Some(policy), Some(age)) => age <= policy.tenant_policy().stale_after.read,
            _ => false,
        };
        fresh && !self.draining.load(Ordering::Acquire)
    }

    /// Makes the gateway unready for good. It still serves requests.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.homes.hurry();
    }

    /// Accepts no more requests. Connections close after their current requests.
    pub(crate) fn close(&self) {
        self.drain();
        self.closing.cancel();
    }

    /// Returns the token that [`Self::close`] cancels.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Counts a request as active until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::AcqRel);
        ActiveRequest(Arc::clone(self))
    }

    /// Returns the number of requests and calls in flight.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Returns the registry of this gateway's metrics.
    pub const fn registry(&self) -> &Registry {
        self.metrics.registry()
    }

    /// Returns the time on the governor's clock.
    pub(crate) fn tick(&self) -> Tick {
        Tick::from_elapsed(self.origin.elapsed())
    }

    /// Drops state of breakers and reports that is out of date, and moves those whose time is over to half-open.
    pub fn sweep_breakers(&self) {
        self.stuck.sweep(self.tick());
        let Some(policy) = self.active_policy() else { return };
        let tenant = &policy.tenant_policy().tenant;
        self.breakers.sweep(self.tick(), |tool, swept| self.metrics.breakers.swept(tenant, tool, swept));
    }

    /// Updates the metric of the tool servers. Asks those that were down whether they are up again, because there may be
    /// no call that shows it.
    pub fn watch_upstreams(&self) {
        let Some(policy) = self.active_policy() else { return };
        let servers = policy.servers().map(|(name, upstream)| (name, upstream.is_up()));
        self.metrics.set_upstreams(&policy.tenant_policy().tenant, servers);
        for upstream in policy.upstreams().filter(|upstream| upstream.has_pods() && upstream.is_up() == Some(false)) {
            let upstream = Arc::clone(upstream);
            tokio::spawn(async move { drop(upstream.report().await) });
        }
    }

    /// Closes connections to tool servers and other gateways that have been idle for long, and drops event streams that
    /// ended long ago.
    pub(crate) fn prune(&self) {
        self.resumable.prune(Instant::now());
        self.peers.prune();
        if let Some(policy) = self.active_policy() {
            policy.upstreams().for_each(|upstream| upstream.prune());
        }
    }
}
