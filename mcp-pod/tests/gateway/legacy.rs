//! Revisions up to 2025-11-25: `initialize` and sessions.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::support::{Behaviour, CODER, TestGateway, Token};

const PING: &str = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;

#[tokio::test]
async fn a_session_is_initialized_and_used() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for version in ["2025-06-18", "2025-11-25"] {
        let answer = client.initialize(version).await;
        let result = &answer.json()["result"];
        assert_eq!(result["protocolVersion"], version);
        assert_eq!(result["capabilities"], json!({"tools": {}}), "only what the gateway offers");
        assert_eq!(result["serverInfo"], json!({"name": "secure-files", "version": "1.2.3", "title": "Files"}));
        assert_eq!(result["instructions"], "Be careful.");
        let initialized = client.legacy(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        assert_eq!((initialized.status.as_u16(), initialized.body.len()), (202, 0));
        assert_eq!(client.legacy(PING).await.json(), json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
        let called = client.legacy_call("echo", json!({"text": "hi"})).await.json();
        assert_eq!(
            called,
            json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "done"}]}})
        );
    }
    let line = &gateway.shim.calls()[0].line;
    assert!(line.starts_with(r#"{"name":"echo","arguments":{"text":"hi"},"_meta":{"traceparent":"00-"#), "{line}");
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_the_newest_legacy_one() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for version in ["2024-11-05", "2026-07-28", "banana"] {
        assert_eq!(client.initialize(version).await.json()["result"]["protocolVersion"], "2025-11-25");
    }
}

#[tokio::test]
async fn a_missing_session_is_400_and_an_invalid_one_404() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    assert_eq!(client.send(Method::POST, "/files/mcp", &[], PING).await.status, 400);
    client.session = Some("garbled".into());
    let answer = client.legacy(PING).await;
    assert_eq!((answer.status.as_u16(), answer.json()["id"].as_str()), (404, Some("p")));
    assert_eq!(gateway.audit_line(2).await["reason"], "session_invalid");
}

#[tokio::test]
async fn another_principal_cannot_use_a_session() {
    let gateway = TestGateway::with(|policy| {
        let grants = policy.principals[0].grants.clone();
        policy.principals[1].grants = grants;
    })
    .await;
    let mut owner = gateway.client().await;
    owner.initialize("2025-11-25").await;
    let mut thief = gateway.client_with(&gateway.pki.token(Token { principal: "other-uid", ..Token::default() })).await;
    thief.session = owner.session.clone();
    assert_eq!(thief.legacy(PING).await.status, 404);
    let mut again = gateway.client_with(&gateway.pki.token(Token { principal: CODER, ..Token::default() })).await;
    again.session = owner.session.clone();
    assert_eq!(again.legacy(PING).await.status, 200, "the same principal cannot use its session with another token");
}

#[tokio::test]
async fn the_version_header_may_name_another_offered_revision() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let session = client.session.clone().unwrap();
    let mut with = async |version: &str| {
        let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", version)];
        client.send(Method::POST, "/files/mcp", &headers, PING).await.status.as_u16()
    };
    assert_eq!(with("2025-11-25").await, 200);
    assert_eq!(with("2025-06-18").await, 200);
    assert_eq!(with("2024-11-05").await, 400);
    assert_eq!(with("banana").await, 400);
    // This revision has no sessions, and other headers.
    assert_eq!(with("2026-07-28").await, 400);
    client.initialize("2025-06-18").await;
    let session = client.session.clone().unwrap();
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let answer = client.send(Method::POST, "/files/mcp", &headers, list).await;
    assert_eq!(answer.json()["result"]["tools"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn what_the_gateway_does_not_offer_is_not_found_and_takes_nothing_from_the_rate_of_calls() {
    let gateway = TestGateway::with(|policy| policy.principals[0].limits.calls_per_minute = Some(1)).await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    for method in ["prompts/list", "resources/list", "resources/templates/list", "logging/setLevel"] {
        let answer = client.legacy(json!({"jsonrpc": "2.0", "id": 1, "method": method}).to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.error().0), (200, -32601), "{method}");
    }
    assert_eq!(client.legacy_call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn ids_are_repeated_exactly() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    for id in ["0", "-7", "9007199254740991", r#""""#, r#""7""#, r#""a b \"c\" é""#] {
        let call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo"}}}}"#);
        let answer = client.legacy(call).await;
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#);
        assert!(answer.body.starts_with(start.as_bytes()), "{answer:?}");
    }
}

#[tokio::test]
async fn only_post_is_allowed() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::PUT, Method::OPTIONS] {
        let answer = client.send(method, "/files/mcp", &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "POST"));
    }
}

#[tokio::test]
async fn the_tool_list_contains_what_is_granted_and_reported() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let first = client.legacy(list).await;
    let message = first.json();
    let tools = message["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["read", "write", "fleet_status", "fleet_report_stuck"],
        "what is granted and reported, and built in"
    );
    assert_eq!(tools[0]["description"], "Reads a file");
    assert_eq!(tools[0]["inputSchema"]["additionalProperties"], false);
    assert!(tools[0]["inputSchema"]["properties"].get("tail").is_none(), "an argument outside the catalogue is shown");
    assert_eq!(client.legacy(list).await.body, first.body);
    let cursor = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}"#;
    assert_eq!(client.legacy(cursor).await.error().0, -32602);
}

#[tokio::test]
async fn a_restarted_server_is_listed_again() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert_eq!(client.legacy(list).await.json()["result"]["tools"].as_array().unwrap().len(), 4);
    gateway.shim.restart(
        r#"{"version":1,"initialize":{},"tools":[{"name":"read","description":"New","inputSchema":{"type":"object"}}]}"#,
    );
    // The answer to a call shows the new epoch of the server.
    client.legacy_call("echo", json!({})).await;
    let tools = client.legacy(list).await.json()["result"]["tools"].clone();
    assert_eq!((tools.as_array().unwrap().len(), tools[0]["description"].as_str()), (3, Some("New")));
}

#[tokio::test]
async fn a_client_that_uses_one_id_twice_gets_both_answers() {
    let gateway = TestGateway::new().await;
    let mut first = gateway.client().await;
    first.initialize("2025-11-25").await;
    let mut second = gateway.client().await;
    second.session = first.session.clone();
    let pieces = ["{\"progress\":{\"progress\":1}}\n", "{\"result\":{}}\n"].map(Bytes::from).to_vec();
    gateway.shim.set_behaviour(Behaviour::Slow(pieces, Duration::from_millis(200)));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"progressToken":7}}}"#;
    let (one, two) = tokio::join!(first.legacy(call), second.legacy(call));
    for answer in [one, two] {
        assert_eq!(answer.events().last().unwrap()["result"], json!({}));
    }
}
