//! Tests of the beats by which the leader decides whose home the gateway is.

use mcp_fleet_control::homes::{Others, answer_to_wire, beat_from_wire};
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_homes::message::{Answer, Beat, Instruction};
use mcp_fleet_homes::view::{Member, View, ViewId};
use mcp_fleet_policy::reason::Reason;

use super::operator::{ControlStream, NAME, Operator, within};
use super::{Gateway, eventually, policy, start};
use crate::gateway::state::{Absence, NoHome};

const TERM: u64 = 7;
const LEASE: u64 = 60_000;

/// Accepts the next dial as the leader of this term.
async fn accept(operator: &mut Operator, term: u64) -> ControlStream {
    operator.next_dial().await.accept_as(term).await
}

/// Returns the next beat.
async fn beat(stream: &mut ControlStream) -> Beat {
    loop {
        if let from_gateway::Message::HomeBeat(beat) = stream.next().await {
            return beat_from_wire(beat).unwrap().0;
        }
    }
}

async fn answer(stream: &ControlStream, to: &Beat, lease_ms: u64, instruction: Instruction) {
    let answer = Answer { term: to.term, number: to.number, lease_ms, instruction };
    stream
        .send(from_operator::Message::HomeAnswer(answer_to_wire(
            &answer,
            Others { end_ms: 9_000, ..Others::default() },
        )))
        .await;
}

/// Returns a view of these pods, with the epoch of the gateway at the other end.
fn view(stream: &ControlStream, number: u64, pods: &[&str]) -> View {
    let epoch = stream.hello.epoch.as_str();
    let member = |pod: &&str| Member { pod_uid: (*pod).into(), epoch: epoch.into() };
    View::new(ViewId { term: TERM, number }, pods.iter().map(member))
}

/// Makes the gateway the home of everybody for `lease_ms`.
async fn make_home(stream: &mut ControlStream, lease_ms: u64) {
    let first = beat(stream).await;
    let alone = view(stream, 1, &["pod-1"]);
    answer(stream, &first, lease_ms, Instruction::Apply(alone.clone())).await;
    loop {
        let next = beat(stream).await;
        if next.held.is_some_and(|held| held.active == alone) {
            return;
        }
    }
}

/// Returns how many of 20 principals' calls are admitted, without waiting.
fn at_home(gateway: &Gateway) -> usize {
    (0..20).filter(|principal| gateway.state.homes.try_enter(&format!("p-{principal}")).is_some()).count()
}

#[tokio::test]
async fn with_an_earlier_operator_all_calls_are_admitted_and_no_beats_sent() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    stream.push(&policy(3)).await;
    stream.prove(3, 0).await;
    eventually("a proof is accepted", || gateway.state.ready()).await;
    assert_eq!(at_home(&gateway), 20);
    // What the gateway says next is its audit head at the earliest, in 30 seconds.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1500), stream.next()).await.is_err());
}

#[tokio::test]
async fn a_gateway_admits_calls_while_it_has_a_lease() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = accept(&mut operator, TERM).await;
    let first = beat(&mut stream).await;
    assert_eq!((first.term, first.held.clone(), first.willing), (TERM, None, false));
    assert_eq!(at_home(&gateway), 0);
    answer(&stream, &first, LEASE, Instruction::Wait).await;
    let refused = gateway.state.homes.enter("p-1", Absence::Leave).await.unwrap_err();
    let NoHome::Denied(denial) = refused else { panic!("{refused:?}") };
    assert_eq!(denial.reason, Reason::HomeUndecided);
    let retry_after = denial.retry_after.unwrap().as_millis();
    // The other gateways' leases last for nine seconds, of which the call has waited two.
    assert!((1_001..=9_000).contains(&retry_after), "{retry_after}");

    // A call that waits is admitted when the gateway gets a lease.
    let state = gateway.state.clone();
    let waiting = tokio::spawn(async move { state.homes.enter("p-1", Absence::Wait).await });
    make_home(&mut stream, LEASE).await;
    let version = waiting.await.unwrap().unwrap();
    assert!(gateway.state.homes.is_current(version));
    // A renewal changes nothing for calls, and a lease that ends takes them away.
    let next = beat(&mut stream).await;
    answer(&stream, &next, 5_000, Instruction::Keep).await;
    beat(&mut stream).await;
    assert!(gateway.state.homes.is_current(version));
    eventually("the lease ends", || !gateway.state.homes.is_current(version)).await;
    assert_eq!(at_home(&gateway), 0);
}

#[tokio::test]
async fn a_view_is_acknowledged_after_the_calls_that_it_forbids_have_stopped() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = accept(&mut operator, TERM).await;
    make_home(&mut stream, LEASE).await;
    let version = gateway.state.homes.enter("p-1", Absence::Wait).await.unwrap();
    let to = beat(&mut stream).await;
    let both = view(&stream, 2, &["pod-1", "pod-2"]);
    answer(&stream, &to, LEASE, Instruction::Prepare(both.clone())).await;
    let mut acknowledged = beat(&mut stream).await;
    while acknowledged.accepted < to.number {
        acknowledged = beat(&mut stream).await;
    }
    assert_eq!(acknowledged.held.clone().unwrap().prepared, std::slice::from_ref(&both));
    assert!(!gateway.state.homes.is_current(version));
    let kept = at_home(&gateway);
    assert!((1..20).contains(&kept), "{kept}");
    answer(&stream, &acknowledged, LEASE, Instruction::Apply(both)).await;
    eventually("the view is applied", || gateway.state.home_beat(true).unwrap().0.held.unwrap().prepared.is_empty())
        .await;
    assert_eq!(at_home(&gateway), kept);
}

#[tokio::test]
async fn a_gateway_says_at_once_that_it_can_be_a_home_and_that_it_drains_and_ends() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = accept(&mut operator, TERM).await;
    make_home(&mut stream, LEASE).await;
    stream.push(&policy(3)).await;
    stream.prove(3, 0).await;
    while !beat(&mut stream).await.willing {}
    gateway.state.drain();
    while beat(&mut stream).await.willing {}
    assert_eq!(at_home(&gateway), 20, "it goes on until there is another gateway");
    gateway.shutdown.cancel();
    while beat(&mut stream).await.held.is_some() {}
    assert_eq!(at_home(&gateway), 0);
}

#[tokio::test]
async fn a_gateway_beats_at_once_when_it_is_told_that_homes_change() {
    let mut operator = Operator::start(NAME).await;
    let _gateway = start(&operator);
    let mut stream = accept(&mut operator, TERM).await;
    let first = beat(&mut stream).await.number;
    for _ in 0..120 {
        stream.send(from_operator::Message::HomesChanged(wire::HomesChanged {})).await;
    }
    // One beat a second would take too long.
    within(async { while beat(&mut stream).await.number < first + 120 {} }).await;
}

#[tokio::test]
async fn a_lease_outlasts_its_stream_and_an_earlier_leader_is_refused() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = accept(&mut operator, TERM).await;
    make_home(&mut stream, LEASE).await;
    drop(stream);
    let mut stream = accept(&mut operator, TERM - 1).await;
    assert!(stream.is_ended().await);
    assert_eq!(at_home(&gateway), 20);
    let mut stream = accept(&mut operator, TERM + 1).await;
    let first = beat(&mut stream).await;
    assert_eq!((first.term, first.held.map(|held| held.active.id.term)), (TERM + 1, Some(TERM)));
    assert_eq!(at_home(&gateway), 20);
}
