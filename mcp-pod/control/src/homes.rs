//! Conversion of the messages about homes to and from the wire format.
//!
//! What does not convert is not answered, or not obeyed: a gateway without answers has no lease soon, and admits nothing.

use std::net::SocketAddr;

use mcp_fleet_homes::message::{Answer, Beat, Held, Instruction};
use mcp_fleet_homes::shares::Demand;
use mcp_fleet_homes::view::{Member, View, ViewId};
use mcp_fleet_policy::governor::{InFlight, SharedLimit};

use crate::wire;
use crate::wire::{home_answer, shared_limit};

/// Maximum number of members of a view on the wire.
const MAX_MEMBERS: usize = 64;
/// Maximum number of views that a gateway prepares for, on the wire.
const MAX_PREPARED: usize = 16;
/// Maximum length of a pod's UID and of an epoch, in bytes.
const MAX_ID: usize = 128;

/// Maximum number of limits in a message: more than a tenant has servers.
const MAX_LIMITS: usize = 1 << 16;
/// Maximum number of calls in flight in a message. A gateway has no memory for as many.
const MAX_CALLS: u32 = 1 << 16;

/// What a gateway says about its calls in a beat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The calls in flight of a gateway that admits none.
    pub in_flight: Vec<InFlight>,
    /// What the gateway could use of the limits that it shares with others. Empty if it knows no shares.
    pub demands: Vec<(SharedLimit, Demand)>,
}

/// Converts a beat to the wire format.
pub fn beat_to_wire(beat: &Beat, usage: Usage) -> wire::HomeBeat {
    let &Beat { term, number, accepted, ref held, willing } = beat;
    let Usage { in_flight, demands } = usage;
    let in_flight = in_flight.into_iter().map(calls_to_wire).collect();
    let demands = demands.into_iter().map(demand_to_wire).collect();
    wire::HomeBeat { term, number, accepted, held: held.as_ref().map(held_to_wire), willing, in_flight, demands }
}

/// Converts a beat from the wire format. None if it is not well-formed.
pub fn beat_from_wire(beat: wire::HomeBeat) -> Option<(Beat, Usage)> {
    let wire::HomeBeat { term, number, accepted, held, willing, in_flight, demands } = beat;
    let held = match held {
        Some(held) => Some(held_from_wire(held)?),
        None => None,
    };
    if demands.len() > MAX_LIMITS {
        return None;
    }
    // Limits of a later version do not concern this one.
    let demands = demands.into_iter().filter_map(demand_from_wire).collect();
    let usage = Usage { in_flight: calls_from_wire(in_flight)?, demands };
    Some((Beat { term, number, accepted, held, willing }, usage))
}

/// What the leader tells a gateway about the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Time after which all leases of other gateways have ended that were granted before, in milliseconds.
    pub end_ms: u64,
    /// Calls that are in flight there.
    pub in_flight: Vec<InFlight>,
    /// Those that can be reached.
    pub peers: Vec<Peer>,
    /// The shares of limits that the gateway applies; none if it applies each as a whole.
    pub division: Option<Vec<(SharedLimit, u32)>>,
    /// The view by which a gateway that leaves forwards requests; none if it has a lease, or if no view was applied yet.
    pub current: Option<View>,
}

/// Another gateway of the same tenant, to which requests can be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// UID of its pod.
    pub pod_uid: String,
    /// Where it accepts forwarded requests.
    pub address: SocketAddr,
}

/// Converts an answer to the wire format.
pub fn answer_to_wire(answer: &Answer, others: Others) -> wire::HomeAnswer {
    let Others { end_ms: others_end_ms, in_flight, peers, division, current } = others;
    let elsewhere = in_flight.into_iter().map(calls_to_wire).collect();
    let peer_to_wire = |Peer { pod_uid, address }| wire::HomePeer { pod_uid, address: address.to_string() };
    let peers = peers.into_iter().map(peer_to_wire).collect();
    let &Answer { term, number, lease_ms, ref instruction } = answer;
    let empty = home_answer::Empty {};
    let instruction = Some(match instruction {
        Instruction::Wait => home_answer::Instruction::Wait(empty),
        Instruction::Keep => home_answer::Instruction::Keep(empty),
        Instruction::Prepare(view) => home_answer::Instruction::Prepare(view_to_wire(view)),
        Instruction::Apply(view) => home_answer::Instruction::Apply(view_to_wire(view)),
    });
    let share_to_wire = |(limit, share)| wire::LimitShare { limit: Some(limit_to_wire(limit)), share };
    let division = division.map(|shares| wire::Division { shares: shares.into_iter().map(share_to_wire).collect() });
    let current = current.as_ref().map(view_to_wire);
    wire::HomeAnswer { term, number, lease_ms, others_end_ms, elsewhere, peers, division, current, instruction }
}

/// Converts an answer from the wire format. None if it is not well-formed, or has an instruction of a later version.
pub fn answer_from_wire(answer: wire::HomeAnswer) -> Option<(Answer, Others)> {
    let wire::HomeAnswer { term, number, lease_ms, others_end_ms, elsewhere, peers, division, current, instruction } =
        answer;
    let instruction = match instruction? {
        home_answer::Instruction::Wait(_) => Instruction::Wait,
        home_answer::Instruction::Keep(_) => Instruction::Keep,
        home_answer::Instruction::Prepare(view) => Instruction::Prepare(view_from_wire(view)?),
        home_answer::Instruction::Apply(view) => Instruction::Apply(view_from_wire(view)?),
    };
    // A peer without a usable address is one that cannot be reached.
    let peers = peers.into_iter().take(MAX_MEMBERS).filter_map(peer_from_wire).collect();
    let division = match division {
        Some(division) => Some(division_from_wire(division)?),
        None => None,
    };
    let current = current.and_then(view_from_wire);
    let others = Others { end_ms: others_end_ms, in_flight: calls_from_wire(elsewhere)?, peers, division, current };
    Some((Answer { term, number, lease_ms, instruction }, others))
}

fn peer_from_wire(peer: wire::HomePeer) -> Option<Peer> {
    let wire::HomePeer { pod_uid, address } = peer;
    is_id(&pod_uid).then_some(())?;
    Some(Peer { pod_uid, address: address.parse().ok()? })
}

fn limit_to_wire(limit: SharedLimit) -> wire::SharedLimit {
    let empty = shared_limit::Empty {};
    wire::SharedLimit {
        limit: Some(match limit {
            SharedLimit::TenantRate => shared_limit::Limit::TenantRate(empty),
            SharedLimit::TenantConcurrency => shared_limit::Limit::TenantConcurrency(empty),
            SharedLimit::ServerConcurrency(uid) => shared_limit::Limit::ServerConcurrency(uid),
        }),
    }
}

fn limit_from_wire(limit: Option<wire::SharedLimit>) -> Option<SharedLimit> {
    Some(match limit?.limit? {
        shared_limit::Limit::TenantRate(_) => SharedLimit::TenantRate,
        shared_limit::Limit::TenantConcurrency(_) => SharedLimit::TenantConcurrency,
        shared_limit::Limit::ServerConcurrency(uid) => {
            SharedLimit::ServerConcurrency(Some(uid).filter(|uid| is_id(uid))?)
        }
    })
}

fn demand_to_wire((limit, demand): (SharedLimit, Demand)) -> wire::LimitDemand {
    let Demand { limit: value, share, used, wanted } = demand;
    wire::LimitDemand { limit: Some(limit_to_wire(limit)), value, share, used, wanted }
}

fn demand_from_wire(demand: wire::LimitDemand) -> Option<(SharedLimit, Demand)> {
    let wire::LimitDemand { limit, value, share, used, wanted } = demand;
    Some((limit_from_wire(limit)?, Demand { limit: value, share, used, wanted }))
}

/// Shares of limits of a later version do not concern this one.
fn division_from_wire(division: wire::Division) -> Option<Vec<(SharedLimit, u32)>> {
    let wire::Division { shares } = division;
    if shares.len() > MAX_LIMITS {
        return None;
    }
    let share = |wire::LimitShare { limit, share }| Some((limit_from_wire(limit)?, share));
    Some(shares.into_iter().filter_map(share).collect())
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len())
}

fn calls_to_wire(calls: InFlight) -> wire::CallsInFlight {
    let InFlight { principal_uid, server_uid, calls } = calls;
    wire::CallsInFlight { principal_uid, server_uid, calls }
}

fn calls_from_wire(calls: Vec<wire::CallsInFlight>) -> Option<Vec<InFlight>> {
    let total = calls.iter().fold(0_u32, |total, calls| total.saturating_add(calls.calls.max(1)));
    let well_formed = |calls: &wire::CallsInFlight| is_id(&calls.principal_uid) && is_id(&calls.server_uid);
    if total > MAX_CALLS || !calls.iter().all(well_formed) {
        return None;
    }
    let converted = calls.into_iter().map(|wire::CallsInFlight { principal_uid, server_uid, calls }| InFlight {
        principal_uid,
        server_uid,
        calls,
    });
    Some(converted.collect())
}

fn held_to_wire(held: &Held) -> wire::HomeViews {
    let Held { active, prepared } = held;
    wire::HomeViews { active: Some(view_to_wire(active)), prepared: prepared.iter().map(view_to_wire).collect() }
}

fn held_from_wire(held: wire::HomeViews) -> Option<Held> {
    let wire::HomeViews { active, prepared } = held;
    if prepared.len() > MAX_PREPARED {
        return None;
    }
    let prepared = prepared.into_iter().map(view_from_wire).collect::<Option<_>>()?;
    Some(Held { active: view_from_wire(active?)?, prepared })
}

fn view_to_wire(view: &View) -> wire::HomeView {
    let ViewId { term, number } = view.id;
    let member = |Member { pod_uid, epoch }: &Member| wire::HomeMember {
        pod_uid: pod_uid.as_ref().to_owned(),
        epoch: epoch.as_ref().to_owned(),
    };
    wire::HomeView { term, number, members: view.members().iter().map(member).collect() }
}

fn view_from_wire(view: wire::HomeView) -> Option<View> {
    let wire::HomeView { term, number, members } = view;
    let well_formed = |member: &wire::HomeMember| is_id(&member.pod_uid) && is_id(&member.epoch);
    if members.len() > MAX_MEMBERS || !members.iter().all(well_formed) {
        return None;
    }
    let member = |wire::HomeMember { pod_uid, epoch }| Member { pod_uid: pod_uid.into(), epoch: epoch.into() };
    Some(View::new(ViewId { term, number }, members.into_iter().map(member)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn view(number: u64, pods: &[&str]) -> View {
        let member = |pod: &&str| Member { pod_uid: (*pod).into(), epoch: "e".into() };
        View::new(ViewId { term: 7, number }, pods.iter().map(member))
    }

    fn calls(calls: u32) -> Vec<InFlight> {
        vec![InFlight { principal_uid: "p".into(), server_uid: "s".into(), calls }]
    }

    #[test]
    fn beats_arrive_as_they_were_sent() {
        let held = Held { active: view(1, &["a"]), prepared: vec![view(2, &["a", "b"]), view(3, &["b"])] };
        for held in [None, Some(held)] {
            let beat = Beat { term: 7, number: 3, accepted: 2, held, willing: true };
            let demand = Demand { limit: 16, share: 4, used: 3, wanted: 9 };
            let limits =
                [SharedLimit::TenantRate, SharedLimit::TenantConcurrency, SharedLimit::ServerConcurrency("s".into())];
            let demands = limits.map(|limit| (limit, demand)).to_vec();
            let usage = Usage { in_flight: calls(3), demands };
            assert_eq!(beat_from_wire(beat_to_wire(&beat, usage.clone())), Some((beat, usage)));
        }
    }

    #[test]
    fn answers_arrive_as_they_were_sent() {
        let views = [view(1, &["a"]), view(2, &["a", "b"])];
        let [first, second] = views;
        for instruction in
            [Instruction::Wait, Instruction::Keep, Instruction::Prepare(first), Instruction::Apply(second)]
        {
            let answer = Answer { term: 7, number: 3, lease_ms: 15_000, instruction };
            let peer = Peer { pod_uid: "b".into(), address: "[2001:db8::1]:8444".parse().unwrap() };
            let division = Some(vec![(SharedLimit::TenantRate, 3), (SharedLimit::ServerConcurrency("s".into()), 0)]);
            let current = Some(view(4, &["c"]));
            let others = Others { end_ms: 9, in_flight: calls(2), peers: vec![peer], division, current };
            assert_eq!(answer_from_wire(answer_to_wire(&answer, others.clone())), Some((answer, others)));
        }
    }

    #[test]
    fn a_peer_without_a_usable_address_is_left_out() {
        let answer = Answer { term: 7, number: 3, lease_ms: 15_000, instruction: Instruction::Keep };
        let mut sent = answer_to_wire(&answer, Others::default());
        let peer = |pod: &str, address: &str| wire::HomePeer { pod_uid: pod.into(), address: address.into() };
        sent.peers =
            vec![peer("a", "10.0.0.1"), peer("", "10.0.0.1:8444"), peer("b", "name:1"), peer("c", "10.0.0.3:1")];
        let (_, others) = answer_from_wire(sent).unwrap();
        assert_eq!(others.peers, [Peer { pod_uid: "c".into(), address: "10.0.0.3:1".parse().unwrap() }]);
    }

    #[test]
    fn what_is_not_well_formed_does_not_arrive() {
        let held = |active, prepared| Some(wire::HomeViews { active, prepared });
        let member = |pod: &str| wire::HomeMember { pod_uid: pod.into(), epoch: "e".into() };
        let view = |members| wire::HomeView { term: 7, number: 1, members };
        let beat =
            |held| wire::HomeBeat { term: 7, number: 1, accepted: 0, held, willing: true, ..wire::HomeBeat::default() };
        let good = view(vec![member("a")]);
        assert!(beat_from_wire(beat(held(Some(good.clone()), vec![]))).is_some());
        for bad in [
            held(None, vec![]),
            held(Some(view(vec![member("")])), vec![]),
            held(Some(view(vec![member(&"a".repeat(129))])), vec![]),
            held(Some(view(vec![member("a"); 65])), vec![]),
            held(Some(good.clone()), vec![good; 17]),
        ] {
            assert_eq!(beat_from_wire(beat(bad)), None);
        }
        for bad in [calls(65_537), [calls(65_536), calls(0)].concat()] {
            assert_eq!(calls_from_wire(bad.into_iter().map(calls_to_wire).collect()), None);
        }
        assert!(calls_from_wire(calls(65_536).into_iter().map(calls_to_wire).collect()).is_some());
        let unknown = wire::HomeAnswer { term: 7, number: 1, lease_ms: 1, ..wire::HomeAnswer::default() };
        assert_eq!(answer_from_wire(unknown), None);
    }
}
