//! Forms of messages that clients in use send, and refusals in a form that they survive.

use http::Method;
use serde_json::json;

use crate::support::{Client, TestGateway, modern};

/// Connects a client with a session of 2025-11-25.
async fn legacy_client(gateway: &TestGateway) -> Client {
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    client
}

fn call(arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{{"name":"read","arguments":{arguments}}}}}"#)
}

#[tokio::test]
async fn null_stands_for_parameters_that_are_left_out() {
    let gateway = TestGateway::new().await;
    let mut client = legacy_client(&gateway).await;
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":null}"#;
    assert_eq!(client.legacy(notification).await.status, 202);
    for params in ["null", r#"{"cursor":null}"#, r#"{"_meta":null}"#] {
        let list = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{params}}}"#);
        assert_eq!(client.legacy(list).await.json()["result"]["tools"].as_array().unwrap().len(), 4, "{params}");
    }
    let echo =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":null,"_meta":null}}"#;
    assert_eq!(client.legacy(echo).await.json()["result"]["content"][0]["text"], "done");
    assert_eq!(gateway.shim.calls()[0].params["arguments"], json!({}));
}

#[tokio::test]
async fn a_tool_without_arguments_takes_none_null_and_an_empty_object() {
    let gateway = TestGateway::with(|policy| policy.servers[0].tools[1].arguments = vec![].into()).await;
    let mut client = legacy_client(&gateway).await;
    for arguments in ["", r#","arguments":null"#, r#","arguments":{}"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo"{arguments}}}}}"#);
        assert_eq!(client.legacy(body).await.json()["result"]["content"][0]["text"], "done", "{arguments}");
    }
    assert!(gateway.shim.calls().iter().all(|call| call.params["arguments"] == json!({})));
    // PHP writes an empty object like this.
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":[]}}"#;
    let (code, text) = client.legacy(list).await.error();
    assert!(code == -32602 && text.contains("must be an object"), "{text}");
}

#[tokio::test]
async fn a_whole_number_may_be_written_with_a_fraction() {
    let gateway = TestGateway::new().await;
    let mut client = legacy_client(&gateway).await;
    for (head, forwarded) in [("10.0", json!(10)), ("1e1", json!(10))] {
        let answer = client.legacy(call(&format!(r#"{{"path":"/workspace/a","head":{head}}}"#))).await;
        assert_eq!(answer.json()["result"]["content"][0]["text"], "done", "{head}");
        assert_eq!(gateway.shim.calls().pop().unwrap().params["arguments"]["head"], forwarded, "{head}");
    }
    assert_eq!(client.legacy(call(r#"{"path":"/workspace/a","head":10.5}"#)).await.denial().0, "argument_type");
}

#[tokio::test]
async fn null_for_an_optional_argument_is_not_forwarded() {
    let gateway = TestGateway::new().await;
    let mut client = legacy_client(&gateway).await;
    let answer = client.legacy(call(r#"{"path":"/workspace/a","head":null}"#)).await;
    assert_eq!(answer.json()["result"]["content"][0]["text"], "done");
    assert_eq!(gateway.shim.calls()[0].params["arguments"], json!({"path": "/workspace/a"}));
    assert_eq!(client.legacy(call(r#"{"path":null}"#)).await.denial().0, "argument_type");
    assert_eq!(client.legacy(call(r#"{"path":"/workspace/a","tail":null}"#)).await.denial().0, "argument_undeclared");
    assert_eq!(gateway.shim.calls().len(), 1);
    // Arguments that are forwarded alike have the same digest.
    client.legacy(call(r#"{"path":"/workspace/a"}"#)).await;
    let lines = gateway.audit_lines(5).await;
    assert_eq!(lines[1]["arguments"], lines[4]["arguments"]);
    let stuck = json!({"reason": "no progress", "tool": null});
    assert_eq!(client.legacy_call("fleet_report_stuck", stuck).await.json()["result"]["isError"], false);
}

#[tokio::test]
async fn a_slash_after_the_path_is_ignored() {
    let gateway = TestGateway::new().await;
    let (body, headers) = modern("tools/list", json!({}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = gateway.client().await.send(Method::POST, "/files/mcp/", &headers, body).await;
    assert_eq!(answer.json()["result"]["tools"].as_array().unwrap().len(), 4);
    assert_eq!(gateway.audit_line(1).await["server"], "files");
    let mut legacy = legacy_client(&gateway).await;
    let session = legacy.session.clone().unwrap();
    let answer = legacy.send(Method::POST, "/files/mcp/", &[("mcp-session-id", &session)], call("{}")).await;
    assert_eq!(answer.denial().0, "argument_missing");
}

#[tokio::test]
async fn an_earlier_revision_is_negotiated_up_whatever_the_header_says() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for version in ["2024-11-05", "2025-03-26"] {
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
        let headers = [("mcp-protocol-version", version)];
        let answer = client.send(Method::POST, "/files/mcp", &headers, body.to_string()).await;
        assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25");
        assert!(answer.headers.contains_key("mcp-session-id"));
    }
}

#[tokio::test]
async fn a_version_header_that_contradicts_the_body_is_a_mismatch() {
    let gateway = TestGateway::new().await;
    let (body, _) = modern("tools/list", json!({}));
    let headers = [("mcp-protocol-version", "2025-11-25")];
    let answer = gateway.client().await.send(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!((answer.status.as_u16(), answer.error().0), (400, -32020));
    assert_eq!(answer.json()["id"], 1);
}

#[tokio::test]
async fn a_legacy_client_that_asks_for_revisions_learns_that_it_has_to_initialize() {
    let gateway = TestGateway::new().await;
    let headers = [("mcp-protocol-version", "2025-11-25")];
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#;
    let answer = gateway.client().await.send(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!((answer.status.as_u16(), answer.error().0), (200, -32601));
}

#[tokio::test]
async fn arguments_that_cannot_be_read_are_refused_with_their_name_and_the_callers_id() {
    let gateway = TestGateway::new().await;
    let mut client = legacy_client(&gateway).await;
    let deep = format!(r#"{{"head":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    for (arguments, reason, name) in [
        (r#"{"path":"/workspace/a","head":725653563933458432}"#, "argument_out_of_range", "head"),
        (r#"{"path":"/workspace/a","n":725653563933458432}"#, "argument_out_of_range", "n"),
        (r#"{"path":"/workspace/a","head":1e400}"#, "argument_out_of_range", "head"),
        (r#"{"path":"/workspace/a","head":NaN}"#, "argument_type", "head"),
        (r#"{"path":"\ud800"}"#, "argument_pattern", "path"),
        ("{\"path\":\"a\u{1}\"}", "argument_pattern", "path"),
        (r#"{"path":"/workspace/a","pa\u0074h":"/etc/passwd"}"#, "argument_type", "path"),
        (&deep, "argument_out_of_range", "head[]"),
    ] {
        let answer = client.legacy(call(arguments)).await;
        assert_eq!(answer.json()["id"], "c", "{arguments:.60}");
        let (refused, text) = answer.denial();
        assert!(refused == reason && text.contains(&format!("`{name}")), "{arguments:.60}: {text}");
    }
    let line = gateway.audit_line(9).await;
    assert_eq!((line["tool"].as_str(), line["reason"].as_str()), (Some("read"), Some("argument_out_of_range")));
    assert!(line.get("arguments").is_none(), "a digest of something else");
    let bytes = [call(r#"{"path":"X"}"#).split('X').map(str::as_bytes).collect::<Vec<_>>().join(&b"\xff"[..])].concat();
    assert_eq!(client.legacy(bytes).await.denial().0, "argument_pattern");
    // Who may not call the tool learns nothing more than that.
    let hidden = call(r#"{"a":1e400}"#).replace("\"read\"", "\"wipe\"");
    assert_eq!(client.legacy(hidden).await.error(), (-32602, "Unknown tool: wipe".to_owned()));
    let built_in = call(r#"{"reason":"\ud800"}"#).replace("\"read\"", "\"fleet_report_stuck\"");
    assert_eq!(client.legacy(built_in).await.denial().0, "argument_pattern");
    assert!(gateway.shim.calls().is_empty());
}

#[tokio::test]
async fn arguments_that_cannot_be_read_are_refused_in_2026_07_28_as_well() {
    let gateway = TestGateway::new().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {"text": "HERE"}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = body.replace("\"HERE\"", "12345678901234567890");
    let answer = gateway.client().await.send(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(answer.denial().0, "argument_out_of_range");
    assert_eq!(answer.json()["result"]["resultType"], "complete");
}

#[tokio::test]
async fn an_error_carries_the_id_if_there_is_one_and_never_null() {
    let gateway = TestGateway::new().await;
    let mut client = legacy_client(&gateway).await;
    let message = |rest: &str| format!(r#"{{"jsonrpc":"2.0",{rest},"method":"ping"}}"#);
    for (body, id) in [
        (message(r#""id":7,"params":[]"#), json!(7)),
        (message(r#""id":"x","params":{"a":1e400}"#), json!("x")),
        (message(r#""params":{"_meta":{"progressToken":725653563933458432}},"id":7"#), json!(7)),
        (message(r#""id":725653563933458432"#), json!(725_653_563_933_458_432_u64)),
        (message(r#""id":7,"extra":1"#), json!(7)),
    ] {
        let answer = client.legacy(body.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &id), "{body}");
        assert!(matches!(answer.error().0, -32700 | -32600), "{body}");
    }
    for body in [message(r#""id":null"#), message(r#""id":1.5"#), message(r#""id":1,"id":2"#), "[]".into(), "x".into()]
    {
        let answer = client.legacy(body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(!answer.json().as_object().unwrap().contains_key("id"), "{answer:?}");
    }
    // In 2026-07-28, such an error has its own status.
    let (body, headers) = modern("tools/list", json!({"a": 1}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = client.send(Method::POST, "/files/mcp", &headers, body.replace("\"a\":1", "\"a\":1e400")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (400, &json!(1)));
}

#[tokio::test]
async fn an_error_that_is_answered_from_the_head_has_the_id_of_the_request_unless_the_token_is_refused() {
    let gateway = TestGateway::new().await;
    let without_policy = TestGateway::without_policy().await;
    let (body, headers) = modern("tools/list", json!({}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let foreign = [&headers[..], &[("origin", "https://evil.example")]].concat();
    let large = " ".repeat(512 * 1024) + &body;
    let mut stranger = gateway.client_with("garbage").await;
    let mut client = gateway.client().await;
    for (status, answer) in [
        (401, stranger.send(Method::POST, "/files/mcp", &headers, body.clone()).await),
        (403, client.send(Method::POST, "/files/mcp", &foreign, body.clone()).await),
        (404, client.send(Method::POST, "/nothing/mcp", &headers, body.clone()).await),
        (413, client.send(Method::POST, "/files/mcp", &headers, large).await),
        (503, without_policy.client().await.send(Method::POST, "/files/mcp", &headers, body.clone()).await),
    ] {
        assert_eq!(answer.status, status);
        let message = answer.json();
        let id = (status != 401).then(|| json!(1));
        assert!(message["error"]["code"].is_i64() && message.get("id").cloned() == id, "{message}");
    }
    // A body that is no message has no id.
    let answer = client.send(Method::POST, "/nothing/mcp", &headers, "[]").await;
    assert!(!answer.json().as_object().unwrap().contains_key("id"), "{answer:?}");
    // In a session, an answer with an id has the status 200, unless there is no such endpoint or session.
    for (status, client) in [(404, &mut client), (200, &mut without_policy.client().await)] {
        let answer = client.send(Method::POST, "/nothing/mcp", &[], body.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (status, &json!(1)), "{answer:?}");
    }
    // The allowance of a stranger's address is 200 failures at once.
    let mut limited = stranger.send(Method::POST, "/files/mcp", &headers, body.clone()).await;
    for _ in 0..2000 {
        if limited.status == 429 {
            break;
        }
        limited = stranger.send(Method::POST, "/files/mcp", &headers, body.clone()).await;
    }
    assert_eq!(limited.status, 429);
    assert!(!limited.json().as_object().unwrap().contains_key("id"), "{limited:?}");
}
