//! Tests of which policies come into force.

use std::time::Duration;

use mcp_fleet_control::convert::to_wire;
use mcp_fleet_control::{Digest, EncodedPolicy, Form, encode, encode_as};
use mcp_fleet_policy::model::TenantPolicy;
use prost::Message as _;

use super::operator::{NAME, Operator};
use super::{eventually, policy, start, state};
use crate::gateway::budget::Leases;
use crate::gateway::control::{intake::Intake, mounted};

/// Returns bytes with their digest.
fn bytes(bytes: Vec<u8>) -> EncodedPolicy {
    EncodedPolicy { digest: Digest::of(&bytes), bytes }
}

#[tokio::test]
async fn a_policy_comes_into_force_and_is_acked_with_its_digest() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    let ack = stream.push(&policy(3)).await;
    assert_eq!((ack.generation, ack.error.as_str()), (3, ""));
    assert_eq!(ack.digest, encode(&policy(3)).digest.to_vec());
    assert_eq!(gateway.state.generation(), 3);
    let again = stream.push(&policy(3)).await;
    assert_eq!(again.error, "", "pushing the same policy again is an error");
}

#[tokio::test]
async fn a_generation_below_the_one_in_force_is_rejected() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    stream.push(&policy(3)).await;
    let ack = stream.push(&policy(2)).await;
    assert!(ack.error.contains("generation 2"), "{}", ack.error);
    assert!(ack.digest.is_empty());
    assert_eq!(gateway.state.generation(), 3);
}

#[tokio::test]
async fn another_policy_of_the_generation_in_force_is_rejected() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    stream.push(&TenantPolicy { suspended: true, ..policy(3) }).await;
    let ack = stream.push(&policy(3)).await;
    assert!(ack.error.contains("another policy"), "{}", ack.error);
    assert!(gateway.state.active_policy().unwrap().tenant_policy().suspended);
}

#[tokio::test]
async fn a_policy_that_needs_an_unknown_feature_is_rejected() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    stream.push(&policy(3)).await;
    let mut message = to_wire(&policy(4), Form::Shared);
    message.required_features.push("taint".into());
    let ack = stream.push_bytes(4, bytes(message.encode_to_vec())).await;
    assert!(ack.error.contains("\"taint\""), "{}", ack.error);
    assert_eq!(gateway.state.generation(), 3);
}

#[tokio::test]
async fn a_policy_with_an_unknown_field_is_rejected() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    let mut message = to_wire(&policy(4), Form::Shared).encode_to_vec();
    message.extend_from_slice(&[0x98, 0x06, 0x01]);
    let ack = stream.push_bytes(4, bytes(message)).await;
    assert!(ack.error.contains("does not know"), "{}", ack.error);
    assert_eq!(gateway.state.generation(), 0);
}

#[tokio::test]
async fn the_form_of_a_policy_makes_no_difference() {
    let mut operator = Operator::start(NAME).await;
    operator.mount(&policy(3));
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    // What a gateway says that it enforces is the same for both forms, and an older leader sends it again.
    assert_eq!(stream.hello.digest, encode(&policy(3)).digest.to_vec());
    for generation in [3, 4] {
        for form in [Form::Expanded, Form::Shared, Form::Expanded] {
            let encoded = encode_as(&policy(generation), form);
            let ack = stream.push_bytes(generation, encoded.clone()).await;
            assert_eq!((ack.error.as_str(), ack.digest), ("", encoded.digest.to_vec()), "{form:?}");
        }
        assert_eq!(gateway.state.generation(), generation);
    }
    let other = TenantPolicy { suspended: true, ..policy(4) };
    let ack = stream.push_bytes(4, encode_as(&other, Form::Expanded)).await;
    assert!(ack.error.contains("another policy of this generation"), "{}", ack.error);
}

#[tokio::test]
async fn a_policy_that_does_not_match_its_message_is_rejected() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    let wrong_digest = EncodedPolicy { digest: Digest::of(b"other"), ..encode(&policy(4)) };
    assert!(stream.push_bytes(4, wrong_digest).await.error.contains("digest"));
    assert!(stream.push_bytes(5, encode(&policy(4))).await.error.contains("generation is 4"));
    assert_eq!(gateway.state.generation(), 0);
}

#[tokio::test]
async fn the_mounted_policy_is_stale_until_the_operator_is_reached() {
    let mut operator = Operator::start(NAME).await;
    operator.mount(&policy(6));
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    assert_eq!(stream.hello.generation, 6);
    assert_eq!(gateway.state.generation(), 6);
    assert_eq!(gateway.state.policy_age(), None);
    assert!(!gateway.state.ready());
    let ack = stream.push(&policy(6)).await;
    assert_eq!(ack.error, "");
    stream.prove(6, 0).await;
    eventually("the operator's proof makes it fresh", || gateway.state.ready()).await;
}

#[tokio::test]
async fn a_stale_leader_cannot_go_below_the_mounted_snapshot() {
    let mut operator = Operator::start(NAME).await;
    operator.mount(&policy(6));
    // An update is in progress: the index is mounted, but not its chunk.
    std::fs::remove_file(operator.args.policy_dir.join("chunk-0")).unwrap();
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    assert_eq!(stream.hello.generation, 0);
    let ack = stream.push(&policy(5)).await;
    assert!(ack.error.contains("the mounted snapshot has generation 6"), "{}", ack.error);
    stream.prove(5, 0).await;
    assert_eq!(stream.push(&policy(6)).await.error, "");
    assert_eq!(gateway.state.policy_age(), None);
}

#[tokio::test]
async fn a_snapshot_that_is_mounted_later_only_raises_the_floor() {
    let operator = Operator::start(NAME).await;
    let state = state(Leases::new(Duration::ZERO));
    let intake = Intake::new(state.clone());
    mounted::load(&operator.args.policy_dir, &intake).await;
    assert_eq!((intake.floor(), state.generation()), (0, 0), "nothing is mounted yet");
    // The index can be mounted before its chunks.
    operator.mount(&policy(6));
    let (chunk, aside) = (operator.args.policy_dir.join("chunk-0"), operator.args.policy_dir.join("aside"));
    std::fs::rename(&chunk, &aside).unwrap();
    mounted::load(&operator.args.policy_dir, &intake).await;
    assert_eq!((intake.floor(), state.generation()), (6, 0));
    std::fs::rename(&aside, &chunk).unwrap();
    mounted::load(&operator.args.policy_dir, &intake).await;
    assert_eq!((intake.floor(), state.generation()), (6, 6), "the chunk was not read later");
    for (mounted, expected) in [(7, 7), (9, 9), (8, 9)] {
        operator.mount(&policy(mounted));
        mounted::load(&operator.args.policy_dir, &intake).await;
        assert_eq!((intake.floor(), state.generation()), (expected, expected));
    }
}
