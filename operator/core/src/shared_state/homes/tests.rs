#![allow(clippy::unwrap_used)]

use mcp_fleet_homes::gateway::Gateway;

use super::*;

const STALE_AFTER: StaleAfter = StaleAfter { read: Duration::from_secs(60), write: Duration::from_secs(15) };
const CONTEXT: BeatContext = BeatContext { is_reachable: true, stale_after: STALE_AFTER, places: None };
const TENANT: &str = "u-1";

fn with_places(term: Term, places: usize) -> Homes {
    let homes = Homes::new(term);
    homes.tenant(&mut homes.tenants.lock(), TENANT, BeatContext { places: Some(places), ..CONTEXT }, 1_000);
    homes
}

fn gateway(pod: &str, epoch: &str) -> Gateway {
    let mut gateway = Gateway::new(Member { pod_uid: pod.into(), epoch: epoch.into() });
    gateway.connect(7);
    gateway
}

fn beat(homes: &Homes, gateway: &mut Gateway, now: u64, willing: bool) -> Answered {
    beat_with(homes, gateway, now, willing, 0)
}

/// Sends a beat of a gateway with this many calls in flight.
fn beat_with(homes: &Homes, gateway: &mut Gateway, now: u64, willing: bool, calls: u32) -> Answered {
    let in_flight = if calls == 0 { vec![] } else { in_flight(calls) };
    let sent = (gateway.beat(now, willing), Usage { in_flight, demands: vec![] });
    let answered = homes.receive(TENANT, CONTEXT, (gateway.member(), 0), sent, now).unwrap();
    gateway.receive(now, answered.answer.clone());
    answered
}

fn in_flight(calls: u32) -> Vec<InFlight> {
    vec![InFlight { principal_uid: "p".into(), server_uid: "s".into(), calls }]
}

fn running(pods: &[&str]) -> BTreeSet<String> {
    pods.iter().map(|&pod| pod.to_owned()).collect()
}

/// Returns the homes of a tenant whose only gateway is in the pod `a`.
fn with_gateway() -> (Homes, Gateway) {
    let (homes, mut a) = (Homes::new(7), gateway("a", "1"));
    let look = beat(&homes, &mut a, 1_000, true).look.unwrap();
    assert_eq!(homes.looked(TENANT, &look, Some(&running(&["a"]))), ["a"]);
    beat(&homes, &mut a, 1_010, true);
    assert!(a.admits(1_010, "p"));
    (homes, a)
}

#[test]
fn a_late_beat_of_an_ended_process_takes_nothing_from_its_successor() {
    let (homes, mut before) = with_gateway();
    let late = before.beat(1_020, true);
    let mut after = gateway("a", "2");
    let from_stream = |gateway: &mut Gateway, sent, stream, now| {
        homes.receive(TENANT, CONTEXT, (gateway.member(), stream), (sent, Usage::default()), now)
    };
    let sent = after.beat(1_030, true);
    let answered = from_stream(&mut after, sent, 1, 1_030).unwrap();
    after.receive(1_030, answered.answer);
    assert!(from_stream(&mut before, late, 0, 1_031).is_none());
    let sent = after.beat(1_040, true);
    let answered = from_stream(&mut after, sent, 1, 1_040).unwrap();
    after.receive(1_040, answered.answer);
    assert!(after.admits(1_040, "p"));
}

#[test]
fn a_first_gateway_is_home_as_soon_as_no_other_pod_runs() {
    let (homes, mut a) = (Homes::new(7), gateway("a", "1"));
    let answered = beat(&homes, &mut a, 1_000, true);
    assert!(!a.admits(1_000, "p"));
    assert!(answered.others.end_ms >= 300_000, "an earlier leader may have granted a lease");
    let look = answered.look.unwrap();
    assert!(beat(&homes, &mut a, 1_005, true).look.is_none(), "the pods are looked at once at a time");
    // The list failed. Then a pod runs that was not heard of.
    assert!(homes.looked(TENANT, &look, None).is_empty());
    let look = beat(&homes, &mut a, 1_010, true).look.unwrap();
    assert!(homes.looked(TENANT, &look, Some(&running(&["a", "b"]))).is_empty());
    let look = beat(&homes, &mut a, 1_020, true).look.unwrap();
    assert!(!a.admits(1_020, "p"));
    // That has an earlier version, which admits calls without a lease.
    homes.note_earlier(TENANT, "b");
    assert_eq!(homes.looked(TENANT, &look, Some(&running(&["a", "b"]))), ["a"]);
    beat(&homes, &mut a, 1_030, true);
    assert!(a.admits(1_030, "p"));
}

#[test]
fn a_gateway_with_a_lease_makes_a_new_leader_look_at_no_pods() {
    let (_, mut a) = with_gateway();
    let homes = Homes::new(8);
    a.connect(8);
    for now in [2_000, 2_010, 2_020] {
        assert!(beat(&homes, &mut a, now, true).look.is_none());
        assert!(a.admits(now, "p"));
    }
}

#[test]
fn a_second_gateway_takes_over_when_the_first_drains() {
    let (homes, mut a) = with_gateway();
    let mut b = gateway("b", "1");
    beat(&homes, &mut b, 2_000, true);
    assert!(a.admits(2_000, "p") && !b.admits(2_000, "p"));
    assert_eq!(beat(&homes, &mut a, 2_010, false).concerned, ["b"], "there is a view to prepare");
    assert!(!a.admits(2_010, "p"));
    assert_eq!(beat(&homes, &mut a, 2_020, false).concerned, ["b"], "there is a view to apply");
    beat(&homes, &mut b, 2_030, true);
    assert!(b.admits(2_030, "p"));
}

#[test]
fn a_gateway_that_takes_over_is_told_first_what_calls_the_other_one_has_in_flight() {
    let (homes, mut a) = with_gateway();
    let mut b = gateway("b", "1");
    beat(&homes, &mut b, 2_000, true);
    beat(&homes, &mut a, 2_010, false);
    beat_with(&homes, &mut a, 2_020, false, 2);
    let answered = beat(&homes, &mut b, 2_030, true);
    assert!(b.admits(2_030, "p"));
    assert_eq!(answered.others.in_flight, in_flight(2));
    // They end one after the other. What a gateway reports is not told to itself.
    assert!(beat_with(&homes, &mut a, 3_000, false, 1).others.in_flight.is_empty());
    assert_eq!(beat(&homes, &mut b, 3_010, true).others.in_flight, in_flight(1));
    beat(&homes, &mut a, 4_000, false);
    assert!(beat(&homes, &mut b, 4_010, true).others.in_flight.is_empty());
    // Whether the calls of a gateway that says nothing any more have ended is not known.
    beat_with(&homes, &mut a, 5_000, false, 1);
    assert_eq!(beat(&homes, &mut b, 19_999, true).others.in_flight, in_flight(1));
    assert!(beat(&homes, &mut b, 20_000, true).others.in_flight.is_empty());
}

#[test]
fn a_gateway_whose_pod_is_gone_is_not_waited_for() {
    let (homes, a) = with_gateway();
    let mut b = gateway("b", "1");
    // The first gateway was not heard of for longer than a shared lease, but its own goes on.
    let answered = beat(&homes, &mut b, 20_000, true);
    assert!(a.admits(20_000, "p") && !b.admits(20_000, "p"));
    assert!((45_000..60_000).contains(&answered.others.end_ms), "{}", answered.others.end_ms);
    let look = answered.look.unwrap();
    assert!(homes.looked(TENANT, &look, Some(&running(&["a", "b"]))).is_empty());
    let look = beat(&homes, &mut b, 20_010, true).look.unwrap();
    assert_eq!(homes.looked(TENANT, &look, Some(&running(&["b"]))), ["b"]);
    beat(&homes, &mut b, 20_020, true);
    assert!(b.admits(20_020, "p"));
}

#[test]
fn a_gateway_that_connected_after_the_look_began_is_kept() {
    let (homes, _) = with_gateway();
    let mut b = gateway("b", "1");
    let look = beat(&homes, &mut b, 20_000, true).look.unwrap();
    let mut c = gateway("c", "1");
    beat(&homes, &mut c, 20_010, true);
    assert_eq!(homes.looked(TENANT, &look, Some(&running(&["b"]))), ["b", "c"]);
}

#[test]
fn a_restarted_process_replaces_the_one_before_it() {
    let (homes, a) = with_gateway();
    let mut restarted = gateway("a", "2");
    beat(&homes, &mut restarted, 2_000, true);
    assert!(restarted.admits(2_000, "p"), "the process before it has ended: {a:?}");
}

#[test]
fn gateways_that_share_the_principals_learn_which_others_there_are() {
    let (homes, mut a, mut b, mut z) = (with_places(7, 3), gateway("a", "1"), gateway("b", "1"), gateway("z", "1"));
    let look = beat(&homes, &mut a, 1_000, true).look.unwrap();
    homes.looked(TENANT, &look, Some(&running(&["a"])));
    for now in [1_010, 1_020, 1_030] {
        for gateway in [&mut a, &mut b, &mut z] {
            beat(&homes, gateway, now, true);
        }
    }
    let peers = |answered: Answered| answered.peers.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(peers(beat(&homes, &mut a, 1_040, true)), ["b", "z"]);
    assert_eq!(peers(beat(&homes, &mut z, 1_040, true)), ["a", "b"]);
    // The process before one in the same pod is still a member.
    assert_eq!(peers(beat(&homes, &mut gateway("a", "2"), 1_045, true)), ["b", "z"]);
    // One that drains still has to know where its principals go.
    beat(&homes, &mut b, 1_050, false);
    assert_eq!(peers(beat(&homes, &mut b, 1_060, false)), ["a", "z"]);
    // A new leader hears from the first gateway which others there may be, of which one may have been lost with the old one.
    let next = with_places(8, 3);
    a.connect(8);
    assert_eq!(peers(beat(&next, &mut a, 1_070, true)), ["b", "z"]);
    // One place: the gateway that has it forwards to nobody.
    let (homes, mut a) = with_gateway();
    beat(&homes, &mut gateway("b", "1"), 2_000, true);
    assert!(peers(beat(&homes, &mut a, 2_000, true)).is_empty());
}

#[test]
fn a_gateway_that_others_cannot_reach_becomes_no_home_beside_them() {
    let (homes, mut a, mut b) = (with_places(7, 2), gateway("a", "1"), gateway("b", "1"));
    let unreachable = |gateway: &mut Gateway, now: u64| {
        let context = BeatContext { is_reachable: false, ..CONTEXT };
        let sent = (gateway.beat(now, true), Usage::default());
        let answered = homes.receive(TENANT, context, (gateway.member(), 0), sent, now).unwrap();
        gateway.receive(now, answered.answer);
        answered.look
    };
    // There is no other.
    let look = unreachable(&mut a, 1_000).unwrap();
    homes.looked(TENANT, &look, Some(&running(&["a"])));
    unreachable(&mut a, 1_010);
    assert!(a.admits(1_010, "p"));
    for now in 1_020..1_030 {
        unreachable(&mut b, now);
        unreachable(&mut a, now);
    }
    assert!(["p", "q", "r", "s"].iter().all(|principal| a.admits(1_030, principal)));
    for now in 1_030..1_040 {
        beat(&homes, &mut b, now, true);
        beat(&homes, &mut a, now, true);
    }
    let of_b = (0..64).filter(|number| b.admits(1_040, &number.to_string())).count();
    assert!(of_b > 0);
    // It stays a home when its address is not known for a while.
    unreachable(&mut b, 1_050);
    beat(&homes, &mut a, 1_051, true);
    unreachable(&mut b, 1_052);
    assert_eq!((0..64).filter(|number| b.admits(1_052, &number.to_string())).count(), of_b);
}

#[test]
fn a_gateway_that_leaves_is_told_of_later_views() {
    let homes = with_places(7, 2);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|pod| gateway(pod, "1"));
    let pods = |answered: &Answered| {
        let current = answered.others.current.as_ref()?;
        Some(current.members().iter().map(|member| member.pod_uid.to_string()).collect::<Vec<_>>())
    };
    let mut now = 1_000;
    let mut last = |homes: &Homes, gateway: &mut Gateway, willing: bool| {
        now += 10;
        beat(homes, gateway, now, willing)
    };
    for _ in 0..40 {
        for gateway in [&mut a, &mut b] {
            if let Some(look) = last(&homes, gateway, true).look {
                homes.looked(TENANT, &look, Some(&running(&["a", "b"])));
            }
        }
    }
    assert_eq!(pods(&last(&homes, &mut a, true)), None, "it has a lease");
    for _ in 0..4 {
        last(&homes, &mut a, false);
        last(&homes, &mut b, true);
    }
    assert_eq!(pods(&last(&homes, &mut a, false)).unwrap(), ["b"]);
    for _ in 0..4 {
        last(&homes, &mut c, true);
        last(&homes, &mut b, true);
    }
    let told = last(&homes, &mut a, false);
    assert_eq!(pods(&told).unwrap(), ["b", "c"]);
    assert_eq!(told.peers.iter().map(|pod| &**pod).collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn calls_at_a_former_home_count_at_the_home_alone() {
    let (homes, mut a, mut b, mut c) = (with_places(7, 3), gateway("a", "1"), gateway("b", "1"), gateway("c", "1"));
    let look = beat(&homes, &mut a, 1_000, true).look.unwrap();
    homes.looked(TENANT, &look, Some(&running(&["a"])));
    for now in 1_010..1_040 {
        for gateway in [&mut a, &mut b, &mut c] {
            beat(&homes, gateway, now, true);
        }
    }
    // One that is still a member, but not the home of the principal.
    let all = [a, b, c];
    let (mut of_p, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.admits(1_040, "p"));
    beat_with(&homes, &mut others[0], 1_050, true, 4);
    assert_eq!(beat(&homes, &mut of_p[0], 1_060, true).others.in_flight, in_flight(4));
    assert_eq!(beat(&homes, &mut others[1], 1_060, true).others.in_flight, vec![]);
}

#[test]
fn gateways_that_are_too_many_stay_homes_until_they_leave() {
    let (homes, mut a, mut b) = (with_places(7, 2), gateway("a", "1"), gateway("b", "1"));
    let look = beat(&homes, &mut a, 1_000, true).look.unwrap();
    homes.looked(TENANT, &look, Some(&running(&["a"])));
    // Lets both send three beats, and returns of how many principals each is the home.
    let mut rounds = |now: u64, b_is_willing: bool| {
        for now in now..now + 3 {
            beat(&homes, &mut a, now, true);
            beat(&homes, &mut b, now, b_is_willing);
        }
        let of = |gateway: &Gateway| (0..64).filter(|n| gateway.admits(now + 3, &n.to_string())).count();
        (of(&a), of(&b))
    };
    let before = rounds(1_010, true);
    assert!(before.0 > 0 && before.1 > 0 && before.0 + before.1 == 64, "{before:?}");
    homes.tenant(&mut homes.tenants.lock(), TENANT, BeatContext { places: Some(1), ..CONTEXT }, 1_020);
    assert_eq!(rounds(1_020, true), before, "somebody moved");
    assert_eq!(rounds(1_030, false), (64, 0));
    assert_eq!(rounds(1_040, true), (64, 0), "it came back");
}

#[test]
fn a_lease_lasts_longer_than_the_policy_stays_fresh() {
    let (_, a) = with_gateway();
    assert!(a.admits(1_010 + 64_000, "p") && !a.admits(1_010 + 65_000, "p"));
    let Times { sole, earlier, .. } = times(StaleAfter { read: Duration::from_secs(3600), ..STALE_AFTER });
    assert_eq!((sole, earlier), (3_605_000, 3_605_000));
}
