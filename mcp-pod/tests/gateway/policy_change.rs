//! Policy that changes while a call is on its way: the newest one decides, up to the moment at which the call is handed
//! to its server.

use std::time::Duration;

use http::StatusCode;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::units::Micros;
use serde_json::{Value, json};

use crate::support::{Spent, TestGateway, Token, eventually, hold_calls, now, release_all};

/// A change that forbids calls of `echo`, and the reason that it gives.
type Change = (&'static str, fn(&mut TenantPolicy));

const CHANGES: [Change; 5] = [
    ("token_revoked", |policy| policy.principals[0].revoked_until = Some(now())),
    ("principal_suspended", |policy| policy.principals[0].suspended = true),
    ("tenant_suspended", |policy| policy.suspended = true),
    ("tool_not_granted", |policy| policy.principals[0].grants.retain(|grant| grant.scope != "files-read")),
    ("server_unknown", |policy| policy.principals[0].grants.clear()),
];

/// Checks that every answer refuses its call as a new request would be refused for this reason.
fn assert_all_refused(reason: &str, answers: &[(StatusCode, Value)]) {
    for (status, message) in answers {
        let (data, expected) = match reason {
            "tool_not_granted" => (&message["error"]["message"], 200),
            "token_revoked" | "token_expired" => (&message["error"]["data"]["reason"], 401),
            "server_unknown" => (&message["error"]["data"]["reason"], 404),
            _ => (&message["result"]["_meta"]["mcp-fleet.dev/denial"]["reason"], 200),
        };
        let text = if reason == "tool_not_granted" { "Unknown tool: echo" } else { reason };
        assert_eq!((status.as_u16(), data), (expected, &json!(text)), "{message}");
    }
}

/// Checks that the last `count` audit lines refuse calls for this reason, under this generation.
async fn assert_audited(gateway: &TestGateway, earlier: usize, count: usize, reason: &str, generation: u64) {
    let lines = gateway.audit_lines(earlier + count).await;
    assert_eq!(lines.len(), earlier + count);
    for line in &lines[earlier..] {
        let decided = (line["decision"].as_str(), line["reason"].as_str(), line["generation"].as_u64());
        assert_eq!(decided, (Some("denied"), Some(reason), Some(generation)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_held_back_is_decided_when_its_last_byte_arrives() {
    for (number, (reason, change)) in CHANGES.into_iter().enumerate() {
        let count = if number == 0 { 500 } else { 40 };
        let gateway = TestGateway::with(|policy| policy.servers[0].limits.max_concurrent_calls = 1000).await;
        let held = hold_calls(&gateway, &gateway.pki.token(Token::default()), count).await;
        gateway.change_policy(change);
        let answers = release_all(held).await;
        let forwarded = gateway.shim.calls().len();
        assert_eq!(forwarded, 0, "{forwarded} of {count} calls were forwarded after {reason}");
        assert_all_refused(reason, &answers);
        assert_audited(&gateway, 1, count, reason, 2).await;
        assert!(!gateway.ledger.has_granted(), "a lease was requested");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_held_back_is_refused_once_its_token_has_expired() {
    let gateway = TestGateway::new().await;
    let held = hold_calls(&gateway, &gateway.pki.token(Token { expires: 10, ..Token::default() }), 40).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let answers = release_all(held).await;
    assert_eq!(gateway.shim.calls().len(), 0, "calls were forwarded with an expired token");
    assert_all_refused("token_expired", &answers);
    assert_audited(&gateway, 1, 40, "token_expired", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_a_lease_is_decided_by_the_newest_policy() {
    for (reason, change) in CHANGES {
        let gateway = TestGateway::with(|policy| policy.principals[0].limits.max_concurrent_calls = Some(40)).await;
        gateway.ledger.pause();
        let held = hold_calls(&gateway, &gateway.pki.token(Token::default()), 40).await;
        let released = tokio::spawn(release_all(held));
        eventually("calls wait for a lease", || gateway.ledger.is_asked()).await;
        gateway.change_policy(change);
        gateway.ledger.resume();
        let answers = released.await.unwrap();
        assert_eq!(gateway.shim.calls().len(), 0, "calls were forwarded after {reason}");
        assert_all_refused(reason, &answers);
        assert_audited(&gateway, 1, 40, reason, 2).await;
        assert_eq!(gateway.ledger.spent().await, Spent::default());

        // Nothing that the calls held is lost.
        gateway.change_policy(|policy| {
            policy.suspended = false;
            policy.principals[0].suspended = false;
            policy.principals[0].revoked_until = None;
            policy.principals[0].grants =
                crate::support::policy(&gateway.pki, gateway.shim.address).principals[0].grants.clone();
        });
        let held = hold_calls(&gateway, &gateway.pki.token(Token::default()), 40).await;
        assert!(release_all(held).await.iter().all(|(_, message)| message["result"]["content"][0]["text"] == "done"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_a_connection_is_decided_by_the_newest_policy() {
    for (reason, change) in CHANGES {
        let gateway = TestGateway::new().await;
        let held = hold_calls(&gateway, &gateway.pki.token(Token::default()), 20).await;
        let handshakes = gateway.shim.hold_handshakes().await;
        let released = tokio::spawn(release_all(held));
        // The session was initialized on a connection that may have been used again.
        eventually("calls wait for a connection", || gateway.shim.knocking() + gateway.shim.calls().len() == 20).await;
        let earlier = gateway.shim.calls().len();
        gateway.change_policy(change);
        drop(handshakes);
        let mut answers = released.await.unwrap();
        assert_eq!(gateway.shim.calls().len(), earlier, "calls were forwarded after {reason}");
        answers.retain(|(_, message)| message["result"]["content"][0]["text"] != "done");
        assert_eq!(answers.len(), 20 - earlier);
        assert_all_refused(reason, &answers);
        assert_audited(&gateway, 1 + earlier, 20 - earlier, reason, 2).await;
        assert_eq!(gateway.ledger.spent().await.calls, earlier as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_call_that_waits_without_its_client_is_not_forwarded_either() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    // A restarted server takes its connections with it.
    gateway.shim.close_connections();
    let handshakes = gateway.shim.hold_handshakes().await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}).to_string();
    let session = client.session.clone().unwrap();
    let headers = [("mcp-session-id", session.as_str())];
    client.send_and_hang_up(&headers, call, "waiting", || gateway.shim.knocking() == 1).await;
    eventually("the gateway notices", || gateway.state.active() == 0).await;
    gateway.change_policy(|policy| policy.principals[0].revoked_until = Some(now()));
    drop(handshakes);
    let line = gateway.audit_line(2).await;
    assert_eq!((line["decision"].as_str(), line["reason"].as_str()), (Some("failed"), Some("cancelled")));
    assert_eq!(line["cost"], "0");
    assert_eq!(gateway.ledger.spent().await, Spent::default());
    assert_eq!(gateway.shim.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_not_forwarded_with_a_policy_that_became_stale_while_it_waited() {
    let gateway = TestGateway::with(|policy| policy.stale_after.read = Duration::from_secs(5)).await;
    gateway.ledger.pause();
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.call("echo", json!({})).await });
    eventually("the call waits for a lease", || gateway.ledger.is_asked()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    gateway.ledger.resume();
    assert_eq!(call.await.unwrap().denial().0, "policy_stale");
    assert_eq!(gateway.shim.calls().len(), 0);
    assert_eq!(gateway.audit_line(1).await["reason"], "policy_stale");
    assert_eq!(gateway.ledger.spent().await, Spent::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_a_new_policy_still_allows_is_forwarded_once_by_its_rules() {
    let gateway = TestGateway::with(|policy| {
        policy.servers[0].tools[1].price = Micros::new(1000);
        policy.principals[0].limits.calls_per_minute = Some(1);
    })
    .await;
    let handshakes = gateway.shim.hold_handshakes().await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.call("echo", json!({"text": "a"})).await });
    eventually("the call waits for a connection", || gateway.shim.knocking() == 1).await;
    gateway.change_policy(|policy| {
        let server = &mut policy.servers[0];
        server.limits.timeout = Duration::from_secs(3);
        server.tools[1].price = Micros::new(2000);
    });
    drop(handshakes);
    assert_eq!(call.await.unwrap().json()["result"]["content"][0]["text"], "done");
    let [call] = &gateway.shim.calls()[..] else { panic!("not forwarded exactly once") };
    assert_eq!(call.header.timeout_ms, 3000, "the call has the limits of the old policy");
    let line = gateway.audit_line(1).await;
    assert_eq!((line["generation"].as_u64(), line["cost"].as_str()), (Some(2), Some("0.002")));
    assert_eq!(gateway.ledger.spent().await, Spent { calls: 1, amount: Micros::new(2000) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_measured_by_the_newest_limit() {
    let gateway = TestGateway::new().await;
    let held = hold_calls(&gateway, &gateway.pki.token(Token::default()), 4).await;
    gateway.change_policy(|policy| policy.servers[0].limits.max_request = mcp_fleet_policy::units::Bytes::new(50));
    let mut statuses = Vec::new();
    for (status, message) in release_all(held).await {
        assert_eq!((&message["id"], &message["error"]["data"]["reason"]), (&json!(1), &json!("request_too_large")));
        statuses.push(status.as_u16());
    }
    statuses.sort_unstable();
    // In a session, the error is a usual answer to the request that it names.
    assert_eq!(statuses, [200, 200, 413, 413]);
    assert_eq!(gateway.shim.calls().len(), 0);
}
