//! Tests of dialling, redialling and the end of a control stream.

use std::time::{Duration, Instant};

use mcp_fleet_control::wire::from_gateway;
use mcp_fleet_control::{feature, version, wire};
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::reason::Reason;
use tonic::Status;

use super::operator::{NAME, Operator, within};
use super::{Gateway, eventually, policy, start};
use crate::gateway::audit::{Line, Name, Subject};
use crate::gateway::state::{LoopReport, StuckReport};

#[tokio::test]
async fn the_hello_of_a_gateway_describes_it() {
    let mut operator = Operator::start(NAME).await;
    let _gateway = start(&operator);
    let dial = operator.next_dial().await;
    assert_eq!(dial.authorization, "Bearer first-token");
    let stream = dial.accept().await;
    let wire::GatewayHello {
        min_version,
        max_version,
        features,
        epoch,
        generation,
        digest,
        obeys_kill_switch,
        respects_homes,
    } = stream.hello;
    assert!(obeys_kill_switch && respects_homes);
    assert_eq!((min_version, max_version), (version::MIN, version::MAX));
    assert_eq!(features, feature::known());
    assert!(!epoch.is_empty());
    assert_eq!((generation, digest), (0, vec![]));
}

#[tokio::test]
async fn a_gateway_redials_followers_and_reads_its_token_again() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    for _ in 0..3 {
        operator.next_dial().await.refuse(version::not_leader());
    }
    std::fs::write(&operator.args.token_file, "second-token").unwrap();
    // One dial may have started before the write.
    let dial = operator.next_dial().await;
    let dial = if dial.authorization == "Bearer second-token" {
        dial
    } else {
        dial.refuse(version::not_leader());
        operator.next_dial().await
    };
    assert_eq!(dial.authorization, "Bearer second-token");
    let mut stream = dial.accept().await;
    assert_eq!(stream.push(&policy(3)).await.error, "");
    assert_eq!(gateway.state.generation(), 3);
}

#[tokio::test]
async fn after_a_broken_stream_the_gateway_reports_what_it_enforces() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut first = operator.accept().await;
    let ack = first.push(&policy(4)).await;
    let epoch = first.hello.epoch.clone();
    drop(first);
    let second = operator.accept().await;
    assert_eq!(second.hello.epoch, epoch);
    assert_eq!((second.hello.generation, second.hello.digest.clone()), (4, ack.digest));
    assert_eq!(gateway.state.generation(), 4, "the policy in force changed");
}

#[tokio::test]
async fn an_operator_with_another_name_gets_no_token() {
    let mut operator = Operator::start("mcp-fleet-operator.elsewhere.svc").await;
    let _gateway = start(&operator);
    assert!(operator.has_no_dial().await, "the handshake must fail before the token is sent");
}

#[tokio::test]
async fn an_operator_that_rejects_the_token_is_dialled_again() {
    let mut operator = Operator::start(NAME).await;
    let _gateway = start(&operator);
    operator.next_dial().await.refuse(Status::unauthenticated("token"));
    operator.accept().await;
}

#[tokio::test]
async fn a_stream_with_an_unknown_version_is_ended() {
    let mut operator = Operator::start(NAME).await;
    let _gateway = start(&operator);
    let mut stream = operator.next_dial().await.accept_with(version::MAX + 1).await;
    assert!(stream.is_ended().await);
    operator.accept().await;
}

#[tokio::test]
async fn a_gateway_ends_soon_after_shutdown() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    gateway.shutdown.cancel();
    within(gateway.task).await.unwrap();
    assert!(stream.is_ended().await);
}

#[tokio::test]
async fn a_proof_makes_the_policy_as_fresh_as_its_age() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    stream.push(&policy(5)).await;
    assert_eq!(gateway.state.policy_age(), None, "a policy alone proves nothing");
    stream.prove(4, 0).await;
    stream.prove(5, 3_000).await;
    eventually("a proof is accepted", || gateway.state.policy_age().is_some()).await;
    let age = gateway.state.policy_age().unwrap();
    assert!(age >= Duration::from_secs(3), "the proof about generation 4 made generation 5 {age:?} old");
    assert!(gateway.state.ready());
}

#[tokio::test]
async fn a_gateway_that_was_paused_ignores_messages_from_the_pause() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    stream.push(&policy(5)).await;
    stream.prove(5, 0).await;
    // Blocks the only thread: the gateway does not run meanwhile, as if the node had paused it.
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(stream.is_ended().await);
    assert_eq!(gateway.state.policy_age(), None, "the proof is older than its age says");
    let stream = operator.accept().await;
    stream.prove(5, 0).await;
    eventually("a new proof is accepted", || gateway.state.policy_age().is_some()).await;
}

async fn write_audit_line(gateway: &Gateway) {
    let nothing = || Name::Known("".into());
    let subject = Subject {
        tenant: "acme".into(),
        generation: 1,
        principal: "".into(),
        principal_uid: "".into(),
        server: nothing(),
        tool: nothing(),
        class: None,
        method: nothing(),
    };
    let slot = gateway.state.audit.reserve().await.unwrap();
    slot.write_now(&Line::suppressed(Reason::RateLimited, 1), &subject).written().await.unwrap();
}

#[tokio::test]
async fn the_last_audit_line_is_reported_from_time_to_time_and_at_the_end() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    write_audit_line(&gateway).await;
    let mut stream = operator.accept().await;
    let mut next_head = async || match stream.next().await {
        from_gateway::Message::AuditHead(head) => head,
        other => panic!("a head was expected, not {other:?}"),
    };
    let first = next_head().await;
    assert_eq!((first.sequence, first.digest.len()), (1, 32));
    write_audit_line(&gateway).await;
    gateway.shutdown.cancel();
    let last = next_head().await;
    assert_eq!((last.chain, last.sequence), (first.chain, 2));
    assert_ne!(last.digest, first.digest);
}

#[tokio::test]
async fn reports_of_stuck_agents_reach_the_operator_once() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    assert_eq!(stream.push(&policy(3)).await.error, "");
    let report = StuckReport {
        principal_uid: "coder-uid".into(),
        server: "files".into(),
        tool: "read".into(),
        reason: "no progress".into(),
    };
    gateway.state.stuck_reports.add(Instant::now(), "coder-uid", || report);
    let wire::StuckReport { principal_uid, server, tool, reason } = match stream.next().await {
        from_gateway::Message::Stuck(report) => report,
        other => panic!("a report was expected, not {other:?}"),
    };
    assert_eq!((&*principal_uid, &*server, &*tool, &*reason), ("coder-uid", "files", "read", "no progress"));
    assert!(gateway.state.stuck_reports.take().is_empty());
    assert_eq!(stream.push(&policy(4)).await.error, "", "the stream was ended");
}

#[tokio::test]
async fn reports_of_refused_loops_reach_the_operator_once() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    assert_eq!(stream.push(&policy(3)).await.error, "");
    gateway.state.loop_reports.add(Instant::now(), "coder-uid", || LoopReport {
        principal_uid: "coder-uid".into(),
        server: "files".into(),
        tool: "read".into(),
        kind: Kind::Cycle,
        count: 6,
        duration: Duration::from_secs(30),
        cool_down: true,
    });
    let wire::LoopReport { principal_uid, server, tool, kind, count, duration_ms, cool_down } =
        match stream.next().await {
            from_gateway::Message::Loop(report) => report,
            other => panic!("a report was expected, not {other:?}"),
        };
    assert_eq!((&*principal_uid, &*server, &*tool, &*kind), ("coder-uid", "files", "read", "cycle"));
    assert_eq!((count, duration_ms, cool_down), (6, 30_000, true));
    assert!(gateway.state.loop_reports.take().is_empty());
}
