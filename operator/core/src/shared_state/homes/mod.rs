//! Which gateways of a tenant admit the calls of which principals, as the leader decides it: one [`Leader`] of the protocol
//! per tenant, for one term.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_control::homes::{Others, Usage};
use mcp_fleet_homes::leader::{Leader, Times};
use mcp_fleet_homes::message::{Answer, Beat, Instruction};
use mcp_fleet_homes::shares::{Divided, Limits};
use mcp_fleet_homes::view::Member;
use mcp_fleet_policy::governor::{InFlight, SharedLimit};
use mcp_fleet_policy::model::StaleAfter;
use parking_lot::Mutex;

use super::Term;

/// Number of homes of a tenant of which it is not known how many gateways it has.
const PLACES: usize = 1;
/// The lease of a gateway that is one of several.
const SHARED_LEASE: Duration = Duration::from_secs(15);
/// How much longer than a lease the leader waits, besides a hundredth of it. No clock of a machine in a cluster is wrong by as much.
const MARGIN: Duration = Duration::from_millis(500);
/// How much longer the lease of an only gateway lasts than its policy stays fresh: the policy may be proved again just
/// before the gateway is cut off.
const BEYOND_FRESHNESS: Duration = Duration::from_secs(5);
/// Longest lease that an earlier leader is expected to have granted, unless the policy allows a longer one. Kubernetes
/// replaces the pods of a lost node after a longer time.
const EARLIER_LEASE: Duration = Duration::from_mins(5);

/// The homes of all tenants, by UID, in one term.
#[derive(Debug)]
pub struct Homes {
    term: Term,
    tenants: Mutex<HashMap<String, Tenant>>,
    /// Pods whose gateways are of an earlier version, and never have leases: their UIDs, and those of their tenants.
    earlier: Mutex<HashMap<String, String>>,
}

#[derive(Debug)]
struct Tenant {
    leader: Leader,
    /// Calls in flight of principals whose calls their gateway does not admit any more, and when they were reported.
    in_flight: HashMap<Member, (u64, Vec<InFlight>)>,
    /// Whether the pods are being looked at.
    is_looking: bool,
    /// Number of the newest stream from which a pod sent a beat, by its UID. What arrives on an older one is from a process
    /// that has ended.
    streams: HashMap<Arc<str>, u64>,
    /// The limits that gateways share.
    limits: Limits<SharedLimit>,
}

/// What the leader has to know besides a beat.
#[derive(Clone, Copy, Debug)]
pub struct BeatContext {
    /// Whether other gateways can connect to the one that sent the beat: its address is known.
    pub is_reachable: bool,
    pub stale_after: StaleAfter,
    /// Number of gateways that are homes at the same time. Others wait until one of them leaves. None if it is not known, and stays as
    /// it is.
    pub places: Option<usize>,
}

/// What follows from a beat.
#[derive(Debug)]
pub struct Answered {
    pub answer: Answer,
    /// What the gateway is told about the others, without the addresses of peers.
    pub others: Others,
    /// UIDs of the pods of the other gateways to which the gateway may forward.
    pub peers: Vec<Arc<str>>,
    /// UIDs of the pods whose gateways should send a beat now.
    pub concerned: Vec<String>,
    /// Whether a gateway waits that could be a home if it turned out that others have ended. The caller then has to look at
    /// the pods of the tenant, and to call [`Homes::looked`].
    pub look: Option<Look>,
}

/// The gateways whose pods are to be looked at.
#[derive(Debug)]
pub struct Look(Vec<Member>);

impl Homes {
    /// Returns the homes at the start of a term.
    pub fn new(term: Term) -> Self {
        Self { term, tenants: Mutex::default(), earlier: Mutex::default() }
    }

    /// Returns the term.
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Answers a beat, which came on this stream with the calls in flight of a gateway that admits none. Returns none if the
    /// beat is out of date. `now` is on the clock of leases.
    pub fn receive(
        &self,
        tenant_uid: &str,
        context: BeatContext,
        (from, stream): (&Member, u64),
        (mut beat, usage): (Beat, Usage),
        now: u64,
    ) -> Option<Answered> {
        let mut tenants = self.tenants.lock();
        let tenant = self.tenant(&mut tenants, tenant_uid, context, now);
        // It would be the home of principals whose requests nobody could forward to it. One that is a home stays so.
        beat.willing &= context.is_reachable || beat.held.is_some() || !tenant.forwards_to(from, now);
        let newest = tenant.streams.entry(Arc::clone(&from.pod_uid)).or_default();
        if stream < *newest {
            return None;
        }
        *newest = stream;
        let (before, willing, numbers) = (tenant.leader.view_ids(), beat.willing, (beat.number, beat.accepted));
        let Usage { in_flight, demands } = usage;
        // A container runs one process at a time, and this one was authenticated after the others had started.
        let predecessor = |other: &&Member| other.pod_uid == from.pod_uid && other.epoch != from.epoch;
        let ended: Vec<Member> = tenant.leader.gateways().filter(predecessor).cloned().collect();
        for member in &ended {
            tenant.leader.ended(member);
        }
        let answer = tenant.leader.receive(now, from, beat)?;
        tenant.streams.retain(|pod, _| tenant.leader.gateways().any(|member| member.pod_uid == *pod));
        tenant.note_in_flight(now, from, in_flight);
        let mut concerned =
            if tenant.leader.view_ids() == before { Vec::new() } else { tenant.pods_other_than(&from.pod_uid) };
        let waits = willing && answer.instruction == Instruction::Wait;
        let look = (waits && !tenant.is_looking).then(|| Look(tenant.leader.gateways().cloned().collect()));
        tenant.is_looking |= look.is_some();
        let end_ms = tenant.leader.others_have_leases(now, from);
        let in_flight = tenant.in_flight_elsewhere(from);
        let peers = tenant.peers(from);
        let Tenant { leader, limits, .. } = tenant;
        let Divided { shares: division, concerned: by_shares } = limits.divide(leader, now, from, numbers, demands);
        if concerned.is_empty() {
            concerned.extend(by_shares.iter().map(|member| member.pod_uid.as_ref().to_owned()));
        }
        // It may be leaving, and its clients are not.
        let current = leader.current().filter(|_| answer.instruction == Instruction::Wait).cloned();
        let others = Others { end_ms, in_flight, peers: Vec::new(), division, current };
        Some(Answered { answer, others, peers, concerned, look })
    }

    /// Records that a gateway of an earlier version is connected, which has no lease and never had one.
    pub fn note_earlier(&self, tenant_uid: &str, pod_uid: &str) {
        self.earlier.lock().insert(pod_uid.to_owned(), tenant_uid.to_owned());
    }

    /// Records which pods of a tenant may still run, by their UIDs; none if that could not be found out. They were listed
    /// after the look began. Returns the UIDs of the pods whose gateways should send a beat now.
    pub fn looked(&self, tenant_uid: &str, look: &Look, running: Option<&BTreeSet<String>>) -> Vec<String> {
        let mut tenants = self.tenants.lock();
        let Some(tenant) = tenants.get_mut(tenant_uid) else { return Vec::new() };
        tenant.is_looking = false;
        let Some(running) = running else { return Vec::new() };
        let mut changed = false;
        // A gateway that connected after the look began may be in a pod that is newer than the list.
        for member in look.0.iter().filter(|member| !running.contains(&*member.pod_uid)) {
            tenant.leader.ended(member);
            changed = true;
        }
        let mut earlier = self.earlier.lock();
        earlier.retain(|pod, tenant| tenant != tenant_uid || running.contains(pod));
        let is_known =
            |pod: &String| earlier.contains_key(pod) || tenant.leader.gateways().any(|member| *member.pod_uid == **pod);
        if !tenant.leader.is_recovered() && running.iter().all(is_known) {
            tenant.leader.no_others_run();
            changed = true;
        }
        if changed { tenant.pods_other_than("") } else { Vec::new() }
    }

    /// Forgets a tenant that was deleted. Its UID never comes back.
    pub fn remove(&self, tenant_uid: &str) {
        self.tenants.lock().remove(tenant_uid);
        self.earlier.lock().retain(|_, tenant| tenant != tenant_uid);
    }

    fn tenant<'t>(
        &self,
        tenants: &'t mut HashMap<String, Tenant>,
        uid: &str,
        BeatContext { stale_after, places, .. }: BeatContext,
        now: u64,
    ) -> &'t mut Tenant {
        let times = times(stale_after);
        let tenant = tenants.entry(uid.to_owned()).or_insert_with(|| Tenant {
            leader: Leader::new(self.term, now, times, PLACES),
            in_flight: HashMap::new(),
            is_looking: false,
            streams: HashMap::new(),
            limits: Limits::default(),
        });
        tenant.leader.set_times(times);
        if let Some(places) = places {
            tenant.leader.set_places(places);
        }
        tenant
    }
}

impl Tenant {
    /// Records the calls in flight of a gateway. Forgets those of gateways that are not heard of any more: whether they have
    /// ended is not known.
    fn note_in_flight(&mut self, now: u64, from: &Member, in_flight: Vec<InFlight>) {
        self.in_flight.retain(|_, (reported, _)| reported.saturating_add(millis(SHARED_LEASE)) > now);
        if in_flight.is_empty() {
            self.in_flight.remove(from);
        } else {
            self.in_flight.insert(from.clone(), (now, in_flight));
        }
    }

    /// Returns the calls at other gateways of the principals whose home a gateway is.
    fn in_flight_elsewhere(&self, gateway: &Member) -> Vec<InFlight> {
        let others = self.in_flight.iter().filter(|(member, _)| *member != gateway);
        let calls = others.flat_map(|(_, (_, in_flight))| in_flight);
        calls.filter(|calls| self.leader.may_be_home(gateway, &calls.principal_uid)).cloned().collect()
    }

    /// Returns the pods of the other members of the views of which a gateway may know, by UID. An earlier process of the gateway's
    /// own pod is none of them.
    fn peers(&self, gateway: &Member) -> Vec<Arc<str>> {
        let mut pods: Vec<_> = self.leader.members().into_iter().map(|member| Arc::clone(&member.pod_uid)).collect();
        pods.dedup();
        pods.retain(|pod_uid| *pod_uid != gateway.pod_uid);
        pods
    }

    /// Returns whether a gateway that becomes a home would get requests from others.
    fn forwards_to(&self, gateway: &Member, now: u64) -> bool {
        let mut others = self.leader.gateways().filter(|other| *other != gateway);
        self.leader.places() > 1 && others.any(|other| self.leader.may_admit(other, now))
    }

    fn pods_other_than(&self, pod_uid: &str) -> Vec<String> {
        let others = self.leader.gateways().filter(|member| *member.pod_uid != *pod_uid);
        others.map(|member| member.pod_uid.as_ref().to_owned()).collect()
    }
}

/// Returns how long leases last with this policy.
fn times(StaleAfter { read, write }: StaleAfter) -> Times {
    let sole = read.max(write) + BEYOND_FRESHNESS;
    let earlier = sole.max(EARLIER_LEASE);
    Times { shared: millis(SHARED_LEASE), sole: millis(sole), earlier: millis(earlier), margin: millis(MARGIN) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
