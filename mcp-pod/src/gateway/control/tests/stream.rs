//! Dialling, refusing, redialling, ending.

use std::time::Duration;

use mcp_fleet_control::{feature, version, wire};
use tonic::Status;

use super::operator::{NAME, Operator, within};
use super::{eventually, policy, start};

#[tokio::test]
async fn a_gateway_says_who_it_is_and_what_it_knows() {
    let mut operator = Operator::start(NAME).await;
    let _gateway = start(&operator);
    let dial = operator.dialled().await;
    assert_eq!(dial.authorization, "Bearer first-token");
    let session = dial.accept().await;
    let wire::GatewayHello { min_version, max_version, features, epoch, generation, digest } = session.hello;
    assert_eq!((min_version, max_version), (version::MIN, version::MAX));
    assert_eq!(features, feature::known());
    assert!(!epoch.is_empty());
    assert_eq!((generation, digest), (0, vec![]));
}

#[tokio::test]
async fn a_follower_is_left_for_the_leader_with_a_token_read_anew() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    for _ in 0..3 {
        operator.dialled().await.refuse(version::not_leader());
    }
    std::fs::write(&operator.args.token_file, "second-token").unwrap();
    // One dial may have been under way already.
    let dial = operator.dialled().await;
    let dial = if dial.authorization == "Bearer second-token" {
        dial
    } else {
        dial.refuse(version::not_leader());
        operator.dialled().await
    };
    assert_eq!(dial.authorization, "Bearer second-token");
    let mut session = dial.accept().await;
    assert_eq!(session.push(&policy(3)).await.error, "");
    assert_eq!(gateway.state.generation(), 3);
}

#[tokio::test]
async fn after_a_broken_stream_the_same_process_comes_back_and_says_what_it_enforces() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut first = operator.accept().await;
    let ack = first.push(&policy(4)).await;
    let epoch = first.hello.epoch.clone();
    drop(first);
    let second = operator.accept().await;
    assert_eq!(second.hello.epoch, epoch);
    assert_eq!((second.hello.generation, second.hello.digest.clone()), (4, ack.digest));
    assert_eq!(gateway.state.generation(), 4, "what was in force stays in force");
}

#[tokio::test]
async fn an_operator_with_another_name_is_not_believed() {
    let mut operator = Operator::start("mcp-fleet-operator.elsewhere.svc").await;
    let _gateway = start(&operator);
    assert!(operator.nobody_dials().await, "the handshake has to fail before the token is sent");
}

#[tokio::test]
async fn an_operator_that_does_not_know_the_token_is_asked_again() {
    let mut operator = Operator::start(NAME).await;
    let _gateway = start(&operator);
    operator.dialled().await.refuse(Status::unauthenticated("token"));
    operator.accept().await;
}

#[tokio::test]
async fn an_operator_of_an_unknown_version_is_left() {
    let mut operator = Operator::start(NAME).await;
    let _gateway = start(&operator);
    let mut session = operator.dialled().await.accept_with(version::MAX + 1).await;
    assert!(session.hung_up().await);
    operator.accept().await;
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_ends_soon() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut session = operator.accept().await;
    gateway.shutdown.cancel();
    within(gateway.task).await.unwrap();
    assert!(session.hung_up().await);
}

#[tokio::test]
async fn proofs_make_the_policy_fresh_with_their_age() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut session = operator.accept().await;
    session.push(&policy(5)).await;
    assert_eq!(gateway.state.policy_age(), None, "a policy alone proves nothing");
    session.prove(4, 0).await;
    session.prove(5, 3_000).await;
    eventually("a proof counts", || gateway.state.policy_age().is_some()).await;
    let age = gateway.state.policy_age().unwrap();
    assert!(age >= Duration::from_secs(3), "the proof about generation 4 made generation 5 {age:?} old");
    assert!(gateway.state.ready());
}

#[tokio::test]
async fn a_gateway_that_stood_still_does_not_trust_what_waited_for_it() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut session = operator.accept().await;
    session.push(&policy(5)).await;
    session.prove(5, 0).await;
    // The only thread: nothing of the gateway runs meanwhile, as if the node had stopped it.
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(session.hung_up().await);
    assert_eq!(gateway.state.policy_age(), None, "the proof is older than it says");
    let session = operator.accept().await;
    session.prove(5, 0).await;
    eventually("a new proof counts", || gateway.state.policy_age().is_some()).await;
}
