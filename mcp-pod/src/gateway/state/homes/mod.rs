//! Which principals' calls this gateway may admit now.
//!
//! The leader decides which gateway is whose home, and the control stream carries the protocol of [`mcp_fleet_homes`]. Calls
//! read a snapshot of its state: when they are admitted ([`Homes::enter`]), and again when they are handed to their server
//! ([`Homes::is_current`]).

mod take_shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mcp_fleet_control::clock::boot_millis;
use mcp_fleet_control::homes::{Others, Usage};
use mcp_fleet_homes::gateway::Gateway;
use mcp_fleet_homes::message::{Answer, Beat, Held};
use mcp_fleet_homes::shares;
use mcp_fleet_homes::view::{Member, View};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::governor::{Demand, Division, Redivided};
use mcp_fleet_policy::reason::Reason;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::State;

/// How long a call waits for its principal to get a home. A planned change takes two beats.
const HOME_TIMEOUT: Duration = Duration::from_secs(2);
/// Time after which a caller may try again if nothing is known about the leases of other gateways.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long shares of limits may take to follow principals to their new homes: beats of all gateways that are concerned, in
/// milliseconds.
const SETTLE_MS: u64 = 4_000;

/// Shortest time between two beats that calls cause which wait for shares, of which callers can make any number.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// When the lease of a gateway ends that needs none.
const NO_END: u64 = u64::MAX;

/// The homes of the tenant's principals, as this gateway knows them.
#[derive(Debug)]
pub(crate) struct Homes {
    /// Absent while no leader decides homes: the operator is of an earlier version, or was not reached yet.
    protocol: Mutex<Option<Gateway>>,
    /// Read by every call without a lock.
    snapshot: ArcSwap<Snapshot>,
    /// Notifies calls that wait for a home.
    changed: Notify,
    /// Notifies the control stream that the leader has to learn something at once.
    beat_due: Notify,
    /// Room for calls that wait for what other gateways do not use.
    waiting: Semaphore,
    /// When the leader is next asked for larger shares, or was last.
    asks: Mutex<Option<Instant>>,
}

/// What calls are admitted by, until the next answer of the leader.
#[derive(Debug)]
struct Snapshot {
    /// Differs from that of every snapshot by which other calls are admitted.
    version: u64,
    /// When the version changed, on the boot clock.
    since: u64,
    admits: Admits,
    /// When the lease ends, on the boot clock.
    ends: u64,
    /// When the leases of all other gateways have ended that the leader had granted before its last answer.
    others_end: u64,
    /// The newest view that this gateway was told of since it had a lease, while it has none: it may be leaving, and its clients are not.
    last: Option<(Member, View)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Admits {
    /// There is no other gateway.
    Everyone,
    /// Those whose home this gateway is.
    Some(Member, Held),
}

impl Admits {
    fn of(member: &Member, held: &Held) -> Self {
        let is_only = |view: &View| matches!(view.members(), [only] if only == member);
        if held.views().all(is_only) { Self::Everyone } else { Self::Some(member.clone(), held.clone()) }
    }
}

/// Where the home of a principal is, as far as this gateway knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Here,
    /// In the pod with this UID.
    At(Arc<str>),
    /// It is being decided, or this gateway has not been told.
    Undecided,
}

impl Snapshot {
    fn find(&self, principal_uid: &str) -> Place {
        if boot_millis() >= self.ends {
            let last = self.last.as_ref().and_then(|(member, view)| Some((member, view.home(principal_uid)?)));
            return match last.map(|(member, home)| Self::place(member, home)) {
                None | Some(Place::Here) => Place::Undecided,
                Some(place) => place,
            };
        }
        let Admits::Some(member, held) = &self.admits else { return Place::Here };
        let mut homes = held.views().map(|view| view.home(principal_uid));
        match homes.next().flatten() {
            Some(home) if homes.all(|other| other == Some(home)) => Self::place(member, home),
            _ => Place::Undecided,
        }
    }

    /// Returns where the calls of principals are admitted whose home this is. `member` is this process.
    fn place(member: &Member, home: &Member) -> Place {
        if home == member {
            Place::Here
        } else if home.pod_uid == member.pod_uid {
            // The process before this one in the same pod, which has ended.
            Place::Undecided
        } else {
            Place::At(Arc::clone(&home.pod_uid))
        }
    }
}

/// By what a call was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HomeVersion(u64);

/// What a call does whose principal has no home at the moment, or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// It waits a little, and leaves for another gateway as soon as that is known to be the home.
    Leave,
    /// It waits a little.
    Wait,
    /// It has waited.
    Refuse,
}

/// Why a call is not admitted by a gateway.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoHome {
    /// The home of the caller is another gateway, which has to decide. Nothing has been done with the call.
    Elsewhere,
    Denied(Denial),
}

impl Default for Homes {
    /// Creates the homes of a gateway that has not reached a leader. Until it does, it has no fresh policy.
    fn default() -> Self {
        let alone =
            Snapshot { version: 0, since: 0, admits: Admits::Everyone, ends: NO_END, others_end: 0, last: None };
        Self {
            protocol: Mutex::new(None),
            snapshot: ArcSwap::from_pointee(alone),
            changed: Notify::new(),
            beat_due: Notify::new(),
            waiting: Semaphore::new(take_shared::MAX_WAITING),
            asks: Mutex::new(None),
        }
    }
}

impl Homes {
    /// Returns by what a call of a principal is admitted now. If its home is not here, the call does what `absence` says.
    pub(crate) async fn enter(&self, principal_uid: &str, absence: Absence) -> Result<HomeVersion, NoHome> {
        let may_leave = absence == Absence::Leave;
        match self.try_enter(principal_uid) {
            Some(version) => Ok(version),
            None if absence == Absence::Refuse => Err(NoHome::Denied(self.denial())),
            // Boxed because it is rare, and would make the future of every call larger.
            None => Box::pin(self.wait(principal_uid, may_leave)).await,
        }
    }

    pub(crate) fn try_enter(&self, principal_uid: &str) -> Option<HomeVersion> {
        let snapshot = self.snapshot.load();
        let admitted = boot_millis() < snapshot.ends
            && match &snapshot.admits {
                Admits::Everyone => true,
                Admits::Some(member, held) => held.admits(member, principal_uid),
            };
        admitted.then_some(HomeVersion(snapshot.version))
    }

    async fn wait(&self, principal_uid: &str, may_leave: bool) -> Result<HomeVersion, NoHome> {
        let deadline = tokio::time::Instant::now() + HOME_TIMEOUT;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(version) = self.try_enter(principal_uid) {
                return Ok(version);
            }
            if may_leave && matches!(self.snapshot.load().find(principal_uid), Place::At(_)) {
                return Err(NoHome::Elsewhere);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(NoHome::Denied(self.denial()));
            }
        }
    }

    /// Returns whether the home of a principal is here, now.
    pub(crate) fn is_here(&self, principal_uid: &str) -> bool {
        self.snapshot.load().find(principal_uid) == Place::Here
    }

    /// Returns where the home of a principal is. Waits a little while that is being decided.
    pub(crate) async fn find(&self, principal_uid: &str) -> Place {
        let place = self.snapshot.load().find(principal_uid);
        match place {
            // Boxed because it is rare, and would make the future of every request larger.
            Place::Undecided => Box::pin(self.find_elsewhere(principal_uid, None, Instant::now() + HOME_TIMEOUT)).await,
            place => place,
        }
    }

    /// Returns where the home of a principal is. Waits until the deadline while that is being decided, or while it is still
    /// where it was before.
    pub(crate) async fn find_elsewhere(&self, principal_uid: &str, before: Option<&Place>, deadline: Instant) -> Place {
        let deadline = tokio::time::Instant::from_std(deadline);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let place = self.snapshot.load().find(principal_uid);
            let is_found = place != Place::Undecided && Some(&place) != before;
            if is_found || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return place;
            }
        }
    }

    /// Returns the denial of a principal whose home is not here, and cannot be asked.
    pub(crate) fn denial(&self) -> Denial {
        let left = self.snapshot.load().others_end.saturating_sub(boot_millis());
        let retry_after = Some(Duration::from_millis(left).max(RETRY_AFTER));
        Denial { retry_after, ..Denial::new(Reason::HomeUndecided) }
    }

    /// Returns whether what was admitted by this version would still be.
    pub(crate) fn is_current(&self, HomeVersion(version): HomeVersion) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.version == version && boot_millis() < snapshot.ends
    }

    /// Returns whether principals have come or gone a short time ago. What they want of limits may not be where they are yet.
    fn has_changed_recently(&self) -> bool {
        boot_millis().saturating_sub(self.snapshot.load().since) < SETTLE_MS
    }

    /// Returns for how long calls may be admitted if the leader is not heard of; none while no leader decides homes.
    pub(crate) fn lease_left(&self) -> Option<Duration> {
        let ends = self.snapshot.load().ends;
        (ends != NO_END).then(|| Duration::from_millis(ends.saturating_sub(boot_millis())))
    }

    /// Waits until the leader has to learn something at once.
    pub(crate) async fn beat_due(&self) {
        self.beat_due.notified().await;
    }

    /// Wakes calls that wait for a home or for a share.
    fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Has the leader told at once what changed.
    pub(super) fn hurry(&self) {
        self.beat_due.notify_one();
    }

    /// Returns when a call that begins to wait for a larger share may ask for it: now, or soon, together with others.
    fn ask_at(&self) -> tokio::time::Instant {
        let now = Instant::now();
        let mut asks = self.asks.lock();
        let next = asks.map_or(now, |last| if last > now { last } else { now.max(last + ASK_INTERVAL) });
        *asks = Some(next);
        next.into()
    }

    /// Records that the gateway is connected to a leader that does not decide homes.
    pub(super) fn connect_earlier(&self) {
        let mut protocol = self.protocol.lock();
        *protocol = None;
        self.publish(None, 0, None);
    }

    /// Records that the gateway is connected to the leader of this term. `member` is this process. Returns false if a later
    /// leader is known.
    pub(crate) fn connect(&self, term: u64, member: Member) -> bool {
        let mut protocol = self.protocol.lock();
        let gateway = match &mut *protocol {
            Some(gateway) if *gateway.member() == member => gateway,
            // What the gateway did before it knew homes gives it no lease.
            protocol => protocol.insert(Gateway::new(member)),
        };
        let connected = gateway.connect(term);
        self.publish(Some(gateway), 0, None);
        connected
    }

    /// Returns the beat to send now, if the leader decides homes.
    pub(super) fn beat(&self, willing: bool) -> Option<Beat> {
        let mut protocol = self.protocol.lock();
        Some(protocol.as_mut()?.beat(boot_millis(), willing))
    }

    /// Returns whether calls of every principal may be admitted.
    fn admits_all(&self) -> bool {
        let snapshot = self.snapshot.load();
        boot_millis() < snapshot.ends && snapshot.admits == Admits::Everyone
    }

    /// Does what an answer says, unless it is out of date. `others_end_ms` is how long other gateways may have leases, and `current`
    /// the view to forward by without a lease. `before` is called before calls are admitted by the answer, in the order of answers.
    /// Returns whether other calls are admitted than before.
    pub(super) fn receive(
        &self,
        answer: Answer,
        others_end_ms: u64,
        current: Option<View>,
        before: impl FnOnce(),
    ) -> bool {
        let mut protocol = self.protocol.lock();
        let Some(gateway) = &mut *protocol else { return false };
        let now = boot_millis();
        if !gateway.accepts(now, &answer) {
            return false;
        }
        before();
        let changed = gateway.receive(now, answer);
        self.publish(Some(gateway), others_end_ms, current);
        changed
    }

    /// Gives the lease up: this gateway admits no more calls.
    pub(super) fn release(&self) {
        let mut protocol = self.protocol.lock();
        if let Some(gateway) = &mut *protocol {
            gateway.release();
            self.publish(Some(gateway), 0, None);
        }
    }

    /// Makes the state of the protocol visible to calls. Without a protocol, the gateway admits all of them.
    fn publish(&self, gateway: Option<&Gateway>, others_end_ms: u64, current: Option<View>) {
        let (now, before) = (boot_millis(), self.snapshot.load());
        let (admits, ends) = match gateway {
            None => (Some(Admits::Everyone), NO_END),
            Some(gateway) => {
                let admits = gateway.held(now).map(|held| Admits::of(gateway.member(), held));
                (admits, gateway.lease_ends().unwrap_or(0))
            }
        };
        let others_end = now.saturating_add(others_end_ms);
        let next = if let Some(admits) = admits {
            // A lease that ended meanwhile may have been another gateway's.
            let same = now < before.ends && before.admits == admits;
            let (version, since) = if same { (before.version, before.since) } else { (before.version + 1, now) };
            Snapshot { version, since, admits, ends, others_end, last: None }
        } else {
            let last = match &before.admits {
                Admits::Some(member, held) => held.views().last().map(|view| (member.clone(), view.clone())),
                Admits::Everyone => before.last.clone(),
            };
            let last = last.map(|(member, view)| (member, current.unwrap_or(view)));
            Snapshot { version: before.version + 1, since: now, admits: Admits::Everyone, ends: 0, others_end, last }
        };
        self.snapshot.store(Arc::new(next));
        self.changed.notify_waiters();
    }
}

impl State {
    /// Records that the control stream is connected to a leader that does not decide homes: all calls are admitted.
    pub(crate) fn connect_earlier_leader(&self) {
        self.homes.connect_earlier();
        self.governor.divide(self.tick(), None);
    }

    /// Records that the control stream is connected to the leader of this term, and that this process is `member`. From now
    /// on only calls of principals are admitted whose home this is. Returns false if a later leader is known.
    pub(crate) fn connect_leader(&self, term: u64, member: Member) -> bool {
        let connected = self.homes.connect(term, member);
        self.hand_over.wait();
        connected
    }

    /// Does what the leader answers to a beat. When this returns, every call that is not yet handed to its server is decided
    /// by that. Returns whether the leader should get a beat at once.
    pub(crate) fn receive_home_answer(&self, answer: Answer, others: Others) -> bool {
        let Others { end_ms, in_flight, peers, division, current } = others;
        let mut elsewhere = self.elsewhere.lock();
        let mut divided = None;
        let changed = self.homes.receive(answer, end_ms, current, || {
            // Before a view is applied by which requests are forwarded to them.
            self.peers.set(peers);
            // Before the first call is admitted beside those.
            elsewhere.set(&self.governor, in_flight);
            divided = self.governor.divide(self.tick(), division.map(Division::from_iter));
        });
        if divided.is_some() {
            self.homes.notify();
        }
        if changed {
            self.hand_over.wait();
        }
        drop(elsewhere);
        // Others wait for what this gateway has less of.
        changed || divided == Some(Redivided::Less)
    }

    /// Returns the beat to send now, if the leader decides homes, and what it says about calls.
    pub(crate) fn home_beat(&self, willing: bool) -> Option<(Beat, Usage)> {
        // First: what it says about views and shares must not be older than the calls.
        let beat = self.homes.beat(willing)?;
        // Of principals that have another home now, or soon.
        let in_flight = if self.homes.admits_all() {
            Vec::new()
        } else {
            // Under the lock, so that they are those that the governor counts.
            let elsewhere = self.elsewhere.lock();
            let mut in_flight = elsewhere.take_from(self.governor.in_flight());
            in_flight.retain(|calls| self.homes.try_enter(&calls.principal_uid).is_none());
            in_flight
        };
        let shares = self.peers.any() || self.governor.is_divided();
        let demands = if shares { self.governor.demands(self.tick()) } else { Vec::new() };
        let demand =
            |(name, Demand { limit, share, used, wanted })| (name, shares::Demand { limit, share, used, wanted });
        Some((beat, Usage { in_flight, demands: demands.into_iter().map(demand).collect() }))
    }

    /// Gives up the lease of homes. When this returns, no call is handed to its server any more.
    pub(crate) fn release_homes(&self) {
        self.homes.release();
        self.hand_over.wait();
        self.homes.hurry();
    }
}

#[cfg(test)]
mod tests;
