//! Authentication: which tokens are accepted, and what a rejected client learns.

use http::Method;
use http::header::WWW_AUTHENTICATE;
use serde_json::json;

use crate::support::{CODER, OTHER, TestGateway, Token, modern, now};

#[tokio::test]
async fn a_caller_with_a_valid_token_is_let_in() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    }
    let line = gateway.audit_line(3).await;
    assert_eq!((line["principal"].as_str(), line["principalUid"].as_str()), (Some("acme/coder"), Some(CODER)));
}

#[tokio::test]
async fn the_challenge_has_no_error_when_the_token_is_missing() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.token = None;
    let answer = client.call("echo", json!({})).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.headers[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(answer.json()["error"]["data"]["reason"], "token_missing");
    assert_eq!(gateway.audit_line(1).await["reason"], "token_missing");
}

#[tokio::test]
async fn every_invalid_token_is_rejected_with_its_reason() {
    let gateway = TestGateway::new().await;
    let valid = Token::default;
    let mut tampered = gateway.pki.token(valid());
    tampered.replace_range(tampered.len() - 4.., "AAAA");
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.";
    let sign = |token: Token| gateway.pki.token(token);
    let cases = [
        ("garbage".to_owned(), "token_invalid"),
        (unsigned.to_owned(), "token_invalid"),
        ("a".repeat(10_000), "token_invalid"),
        (tampered, "token_invalid"),
        (sign(Token { typ: "JWT", ..valid() }), "token_invalid"),
        (sign(Token { kid: "other", ..valid() }), "token_invalid"),
        (sign(Token { issued: 600, ..valid() }), "token_invalid"),
        (sign(Token { audience: "https://gateway.beta-mcp.svc", ..valid() }), "token_wrong_audience"),
        (sign(Token { audience: "https://gateway.beta-mcp.svc", kid: "beta", ..valid() }), "token_wrong_audience"),
        (sign(Token { issuer: "https://elsewhere", ..valid() }), "token_wrong_audience"),
        (sign(Token { tenant: "t-2", ..valid() }), "token_wrong_audience"),
        (sign(Token { issued: -100, expires: -1, ..valid() }), "token_expired"),
        (sign(Token { principal: "gone-uid", ..valid() }), "principal_unknown"),
    ];
    for (token, reason) in cases {
        let mut client = gateway.client_with(&token).await;
        // Twice: a cached token must be rejected as well.
        for _ in 0..2 {
            let answer = client.call("echo", json!({})).await;
            assert_eq!(answer.status, 401, "{reason}");
            let challenge = answer.headers[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{challenge}");
            assert_eq!(answer.json()["error"]["data"]["reason"], reason);
        }
    }
    assert!(gateway.shim.calls().is_empty());
}

#[tokio::test]
async fn revocation_ends_a_token_on_an_open_connection() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    assert_eq!(client.call("echo", json!({})).await.status, 200);
    gateway.change_policy(|policy| policy.principals[0].revoked_until = Some(now() - 10));
    let answer = client.call("echo", json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["data"]["reason"].as_str()),
        (401, Some("token_revoked"))
    );
    let mut newer = gateway.client_with(&gateway.pki.token(Token { issued: 0, ..Token::default() })).await;
    assert_eq!(newer.call("echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn removing_a_key_from_the_policy_invalidates_its_tokens() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    assert_eq!(client.call("echo", json!({})).await.status, 200);
    gateway.change_policy(|policy| policy.keys.clear());
    assert_eq!(client.call("echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn every_answer_to_a_suspended_caller_names_the_suspension() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    gateway.change_policy(|policy| policy.principals[0].suspended = true);
    assert_eq!(client.call("echo", json!({})).await.denial().0, "principal_suspended");
    assert_eq!(client.call("no such tool", json!({})).await.denial().0, "principal_suspended");
    for method in ["tools/list", "server/discover"] {
        assert_eq!(client.modern(method, json!({})).await.json()["error"]["data"]["reason"], "principal_suspended");
    }
    gateway.change_policy(|policy| {
        policy.principals[0].suspended = false;
        policy.suspended = true;
    });
    assert_eq!(client.call("echo", json!({})).await.denial().0, "tenant_suspended");
    gateway.change_policy(|policy| policy.suspended = false);
    // A client that tries again on the same connection recovers.
    assert_eq!(
        client.modern("server/discover", json!({})).await.json()["result"]["capabilities"],
        json!({"tools": {}})
    );
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn a_server_without_a_grant_looks_like_one_that_does_not_exist() {
    let gateway = TestGateway::new().await;
    let mut other = gateway.client_with(&gateway.pki.token(Token { principal: OTHER, ..Token::default() })).await;
    let (body, headers) = modern("tools/list", json!({}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let exists = other.send(Method::POST, "/files/mcp", &headers, body.clone()).await;
    let missing = other.send(Method::POST, "/nothing/mcp", &headers, body.clone()).await;
    assert_eq!((exists.status.as_u16(), &exists.body), (404, &missing.body));
    assert_eq!(missing.status, 404);
    let lines = gateway.audit_lines(2).await;
    assert!(lines.iter().all(|line| line["reason"] == "server_unknown"), "{lines:?}");
}

#[tokio::test]
async fn a_flood_of_invalid_tokens_does_not_lock_out_known_callers() {
    let gateway = TestGateway::new().await;
    let mut known = gateway.client().await;
    assert_eq!(known.call("echo", json!({})).await.status, 200);
    let mut flood = gateway.client_with("garbage").await;
    let mut statuses = Vec::new();
    for _ in 0..260 {
        statuses.push(flood.call("echo", json!({})).await.status.as_u16());
    }
    assert_eq!(statuses[0], 401);
    assert!(statuses.contains(&429), "never limited");
    assert_eq!(known.call("echo", json!({})).await.status, 200, "the flood locked out a known token");
}

#[tokio::test]
async fn every_request_is_rejected_while_there_is_no_policy() {
    let gateway = TestGateway::without_policy().await;
    let mut client = gateway.client().await;
    let answer = client.call("echo", json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["data"]["reason"].as_str()),
        (503, Some("policy_missing"))
    );
    assert!(!gateway.state.ready());
}
