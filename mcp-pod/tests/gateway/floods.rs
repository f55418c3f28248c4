//! Floods of lines: no client can fill the audit log or the log, or block the gateway through them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    CODER, Client, Options, PATIENCE, ProcessGateway, TestGateway, Token, call_until_limited, eventually, now,
    tls_offering, until,
};

/// Sends the same call often.
async fn flood(client: &mut Client, requests: u64) {
    for _ in 0..requests {
        client.call("echo", json!({})).await;
    }
}

/// Waits until the audit lines account for this many requests with one reason, which began at `started`, and returns
/// those lines.
async fn accounted(gateway: &TestGateway, started: Instant, reason: &str, requests: u64) -> Vec<Value> {
    let mut lines = Vec::new();
    until("the lines account for all requests", async || {
        lines = gateway.audit_lines(1).await;
        lines.retain(|line| line["reason"] == reason);
        // A line without a number is about one request.
        lines.iter().map(|line| line["suppressed"].as_u64().unwrap_or(1)).sum::<u64>() == requests
    })
    .await;
    // One that requests share each second, and one of its own if there was none in the second before.
    let most = 2 + 2 * usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(lines.len() <= most, "{} lines, and {most} are enough: {lines:?}", lines.len());
    lines
}

#[tokio::test]
async fn a_flood_of_revoked_tokens_has_few_lines_which_name_the_principal() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    assert_eq!(client.call("echo", json!({})).await.status, 200);
    gateway.change_policy(|policy| policy.principals[0].revoked_until = Some(now() - 10));
    let started = Instant::now();
    flood(&mut client, 300).await;
    let lines = accounted(&gateway, started, "token_revoked", 300).await;
    assert!(lines.iter().all(|line| line["principalUid"] == CODER && line["principal"] == "acme/coder"), "{lines:?}");
    let (own, shared) = (&lines[0], lines.iter().find(|line| line.get("suppressed").is_some()).unwrap());
    assert!(own["call"].is_string() && own.get("suppressed").is_none(), "{own}");
    assert_eq!(
        (shared.get("call"), shared.get("durationMs"), shared["decision"].as_str()),
        (None, None, Some("denied"))
    );
    let labels = r#"reason="token_revoked",server="",tenant="acme""#;
    assert!((gateway.metric("mcp_pod_denials_total", labels) - 300.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn floods_have_lines_of_their_own_for_each_reason() {
    let gateway = TestGateway::new().await;
    let mut expired =
        gateway.client_with(&gateway.pki.token(Token { issued: -100, expires: -1, ..Token::default() })).await;
    let mut missing = gateway.client_with("").await;
    missing.token = None;
    let started = Instant::now();
    flood(&mut expired, 100).await;
    flood(&mut missing, 100).await;
    let expired = accounted(&gateway, started, "token_expired", 100).await;
    assert!(expired.iter().all(|line| line["principal"] == "acme/coder"), "{expired:?}");
    let missing = accounted(&gateway, started, "token_missing", 100).await;
    assert!(missing.iter().all(|line| line.get("principal").is_none()), "{missing:?}");
}

#[tokio::test]
async fn requests_without_a_policy_share_lines() {
    let gateway = TestGateway::without_policy().await;
    let started = Instant::now();
    flood(&mut gateway.client().await, 100).await;
    accounted(&gateway, started, "policy_missing", 100).await;
}

#[tokio::test]
async fn requests_beyond_an_allowance_share_lines() {
    let gateway = TestGateway::new().await;
    flood(&mut gateway.client().await, 1).await;
    let started = Instant::now();
    let statuses = call_until_limited((gateway.address, &gateway.pki), 50).await;
    let limited = statuses.iter().filter(|status| **status == 429).count() as u64;
    let lines = accounted(&gateway, started, "rate_limited", limited).await;
    assert!(lines.iter().all(|line| line["principal"] == "acme/coder"), "{lines:?}");
}

/// Sends frames that h2 warns about, before any request.
async fn send_unexpected_pings(gateway: &ProcessGateway, count: usize) {
    let mut stream = tls_offering(gateway.address, &gateway.pki, &[b"h2"]).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let ping_ack = b"\0\0\x08\x06\x01\0\0\0\0unasked!";
    for _ in 0..count / 100 {
        stream.write_all(&ping_ack.repeat(100)).await.unwrap();
    }
    // An answer to a last ping shows that all frames were read.
    stream.write_all(b"\0\0\x08\x06\0\0\0\0\0finished").await.unwrap();
    let mut received = Vec::new();
    // Other frames may follow it.
    while !received.windows(8).any(|bytes| bytes == b"finished") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn frames_before_authentication_do_not_flood_the_log() {
    let gateway = ProcessGateway::start(&Options::default(), |_| {}).await;
    let started = Instant::now();
    send_unexpected_pings(&gateway, 10_000).await;
    eventually("a line about the frames", || gateway.log.count("recv PING ack") > 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let lines = gateway.log.count("recv PING ack");
    // Ten at once, and then one a second.
    let most = 11 + u32::try_from(started.elapsed().as_secs()).unwrap();
    assert!(u32::try_from(lines).unwrap() <= most, "{lines} lines");
    let dropped = gateway.metric("mcp_pod_log_lines_dropped_total{cause=\"repeated\"}").await;
    assert!(dropped >= 10_000.0 - f64::from(most), "{dropped} lines are counted");
}

#[tokio::test]
async fn a_blocked_standard_error_does_not_block_calls() {
    let options = Options { log_level: "trace", read_log: false, ..Options::default() };
    let gateway = ProcessGateway::start(&options, |_| {}).await;
    let pings = tokio::time::timeout(PATIENCE, send_unexpected_pings(&gateway, 10_000));
    pings.await.expect("the connection is blocked");
    let mut client = gateway.client(Token::default()).await;
    let call = tokio::time::timeout(PATIENCE, client.call("echo", json!({})));
    let answer = call.await.expect("the call is blocked");
    assert_eq!(answer.json()["result"]["content"][0]["text"], "done");
    let dropped = gateway.metric("mcp_pod_log_lines_dropped_total{cause=\"blocked\"}").await;
    assert!(dropped > 0.0, "the test wrote too few lines");
}
