//! Tests of the kill switch, as the control stream carries it.

use mcp_fleet_control::wire::{self, from_operator};

use super::operator::{ControlStream, NAME, Operator};
use super::{Gateway, eventually, policy, start};

/// Returns the switch as the operator read it `age_ms` ago.
fn switch(stop: bool, age_ms: u32) -> wire::KillSwitch {
    wire::KillSwitch { stop, reason: "because".into(), age_ms }
}

async fn send(stream: &ControlStream, switch: wire::KillSwitch) {
    stream.send(from_operator::Message::KillSwitch(switch)).await;
}

async fn prove(stream: &ControlStream, kill_switch: Option<wire::KillSwitch>) {
    let proof = wire::Freshness { generation: 3, age_ms: 0, kill_switch };
    stream.send(from_operator::Message::Freshness(proof)).await;
}

async fn stops(gateway: &Gateway, stopped: bool) {
    eventually("the gateway obeys", || gateway.state.is_stopped() == stopped).await;
}

#[tokio::test]
async fn the_operator_stops_and_resumes_a_gateway() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    send(&stream, switch(true, 0)).await;
    stops(&gateway, true).await;
    // A policy and proofs of an operator that does not know the switch change nothing.
    stream.push(&policy(3)).await;
    prove(&stream, None).await;
    eventually("a proof is accepted", || gateway.state.ready()).await;
    assert!(gateway.state.is_stopped());
    send(&stream, switch(false, 0)).await;
    stops(&gateway, false).await;
    // A proof says the same, for a gateway that missed the message.
    prove(&stream, Some(switch(true, 0))).await;
    stops(&gateway, true).await;
    prove(&stream, Some(switch(false, 0))).await;
    stops(&gateway, false).await;
}

#[tokio::test]
async fn a_stop_outlasts_the_stream_and_an_operator_that_missed_it() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let stream = operator.accept().await;
    send(&stream, switch(true, 1_000)).await;
    stops(&gateway, true).await;
    drop(stream);
    let mut stream = operator.accept().await;
    // What this operator knows is older than the stop. The acknowledgement comes after it was read.
    send(&stream, switch(false, 30_000)).await;
    prove(&stream, Some(switch(false, 30_000))).await;
    stream.push(&policy(3)).await;
    assert!(gateway.state.is_stopped(), "an old state lifted the stop");
    send(&stream, switch(false, 0)).await;
    stops(&gateway, false).await;
}
