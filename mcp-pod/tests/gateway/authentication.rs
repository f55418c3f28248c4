//! Who may come in at all.

use http::Method;
use http::header::WWW_AUTHENTICATE;
use serde_json::json;

use crate::support::{CODER, OTHER, Token, World, modern, now};

#[tokio::test]
async fn a_good_token_is_let_in_and_verified_only_once() {
    let world = World::new().await;
    let mut client = world.client().await;
    for _ in 0..3 {
        assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    }
    let line = world.line(3).await;
    assert_eq!((line["principal"].as_str(), line["principalUid"].as_str()), (Some("acme/coder"), Some(CODER)));
}

#[tokio::test]
async fn without_a_token_the_challenge_has_no_error() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.token = None;
    let answer = client.call("echo", json!({})).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.headers[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(answer.json()["error"]["data"]["reason"], "token_missing");
    assert_eq!(world.line(1).await["reason"], "token_missing");
}

#[tokio::test]
async fn every_bad_token_is_refused_with_its_reason() {
    let world = World::new().await;
    let usual = Token::default;
    let mut tampered = world.pki.token(usual());
    tampered.replace_range(tampered.len() - 4.., "AAAA");
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.";
    let sign = |token: Token| world.pki.token(token);
    let cases = [
        ("garbage".to_owned(), "token_invalid"),
        (unsigned.to_owned(), "token_invalid"),
        ("a".repeat(20_000), "token_invalid"),
        (tampered, "token_invalid"),
        (sign(Token { typ: "JWT", ..usual() }), "token_invalid"),
        (sign(Token { kid: "other", ..usual() }), "token_invalid"),
        (sign(Token { issued: 600, ..usual() }), "token_invalid"),
        (sign(Token { audience: "https://gateway.beta-mcp.svc", ..usual() }), "token_wrong_audience"),
        (sign(Token { audience: "https://gateway.beta-mcp.svc", kid: "beta", ..usual() }), "token_wrong_audience"),
        (sign(Token { issuer: "https://elsewhere", ..usual() }), "token_wrong_audience"),
        (sign(Token { tenant: "t-2", ..usual() }), "token_wrong_audience"),
        (sign(Token { issued: -100, expires: -1, ..usual() }), "token_expired"),
        (sign(Token { principal: "gone-uid", ..usual() }), "principal_unknown"),
    ];
    for (token, reason) in cases {
        let mut client = world.client_with(&token).await;
        // Twice: what is remembered must be refused as well.
        for _ in 0..2 {
            let answer = client.call("echo", json!({})).await;
            assert_eq!(answer.status, 401, "{reason}");
            let challenge = answer.headers[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{challenge}");
            assert_eq!(answer.json()["error"]["data"]["reason"], reason);
        }
    }
    assert!(world.shim.seen().is_empty());
}

#[tokio::test]
async fn a_token_is_revoked_under_an_open_connection_that_used_it_before() {
    let world = World::new().await;
    let mut client = world.client().await;
    assert_eq!(client.call("echo", json!({})).await.status, 200);
    world.change(|policy| policy.principals[0].revoked_until = Some(now() - 10));
    let answer = client.call("echo", json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["data"]["reason"].as_str()),
        (401, Some("token_revoked"))
    );
    let mut newer = world.client_with(&world.pki.token(Token { issued: 0, ..Token::default() })).await;
    assert_eq!(newer.call("echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_key_that_leaves_the_policy_takes_its_tokens_with_it() {
    let world = World::new().await;
    let mut client = world.client().await;
    assert_eq!(client.call("echo", json!({})).await.status, 200);
    world.change(|policy| policy.keys.clear());
    assert_eq!(client.call("echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn whoever_is_suspended_hears_it_in_words() {
    let world = World::new().await;
    let mut client = world.client().await;
    world.change(|policy| policy.principals[0].suspended = true);
    assert_eq!(client.call("echo", json!({})).await.denial().0, "principal_suspended");
    assert_eq!(client.call("no such tool", json!({})).await.denial().0, "principal_suspended");
    assert_eq!(client.modern("tools/list", json!({})).await.json()["error"]["data"]["reason"], "principal_suspended");
    world.change(|policy| {
        policy.principals[0].suspended = false;
        policy.suspended = true;
    });
    assert_eq!(client.call("echo", json!({})).await.denial().0, "tenant_suspended");
    world.change(|policy| policy.suspended = false);
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn a_server_without_a_grant_answers_as_one_that_does_not_exist() {
    let world = World::new().await;
    let mut stranger = world.client_with(&world.pki.token(Token { principal: OTHER, ..Token::default() })).await;
    let (body, headers) = modern("tools/list", json!({}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let exists = stranger.send(Method::POST, "/files/mcp", &headers, body.clone()).await;
    let missing = stranger.send(Method::POST, "/nothing/mcp", &headers, body.clone()).await;
    assert_eq!((exists.status.as_u16(), &exists.body), (404, &missing.body));
    assert_eq!(missing.status, 404);
    let aggregate = stranger.send(Method::POST, "/mcp", &headers, body).await;
    assert_eq!(aggregate.status, 404);
    let lines = world.lines(3).await;
    assert!(lines.iter().all(|line| line["reason"] == "server_unknown"), "{lines:?}");
}

#[tokio::test]
async fn a_flood_of_bad_tokens_is_slowed_and_does_not_lock_out_who_is_known() {
    let world = World::new().await;
    let mut known = world.client().await;
    assert_eq!(known.call("echo", json!({})).await.status, 200);
    let mut flood = world.client_with("garbage").await;
    let mut statuses = Vec::new();
    for _ in 0..260 {
        statuses.push(flood.call("echo", json!({})).await.status.as_u16());
    }
    assert_eq!(statuses[0], 401);
    assert!(statuses.contains(&429), "never slowed");
    assert_eq!(known.call("echo", json!({})).await.status, 200, "the flood locked out a known token");
}

#[tokio::test]
async fn without_a_policy_nobody_is_let_in() {
    let world = World::without_policy().await;
    let mut client = world.client().await;
    let answer = client.call("echo", json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["data"]["reason"].as_str()),
        (503, Some("policy_missing"))
    );
    assert!(!world.state.ready());
}
