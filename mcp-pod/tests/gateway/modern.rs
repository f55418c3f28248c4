//! Revision 2026-07-28: stateless requests.

use http::Method;
use serde_json::json;

use crate::support::{TestGateway, modern};

#[tokio::test]
async fn discovery_describes_the_server() {
    let gateway = TestGateway::new().await;
    let answer = gateway.client().await.modern("server/discover", json!({})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json()["result"],
        json!({
            "resultType": "complete",
            "supportedVersions": ["2026-07-28", "2025-11-25", "2025-06-18"],
            "capabilities": {"tools": {}},
            "instructions": "Be careful.",
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "secure-files", "version": "1.2.3", "title": "Files"}},
        })
    );
}

#[tokio::test]
async fn a_tool_is_called_without_a_session() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let answer = client.call("read", json!({"path": "/workspace/a.txt", "head": 5})).await;
    assert_eq!(
        answer.json()["result"],
        json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]})
    );
    let received = gateway.shim.calls().pop().unwrap();
    let start = r#"{"name":"read","arguments":{"head":5,"path":"/workspace/a.txt"},"_meta":{"traceparent":"00-"#;
    assert!(received.line.starts_with(start), "{}", received.line);
    let header = &received.header;
    assert_eq!((header.version, header.timeout_ms, header.max_response), (1, 60_000, 1024 * 1024));
    assert_eq!(
        (header.paths[0].value.as_str(), &header.paths[0].within[..]),
        ("/workspace/a.txt", &["/workspace".to_owned()][..])
    );
    let line = gateway.audit_line(1).await;
    assert_eq!((line["decision"].as_str(), line["call"].as_str()), (Some("allowed"), Some(header.call.as_str())));
    assert!(line["arguments"].as_str().unwrap().starts_with("blake3-keyed:"));
    assert!(line["result"].as_str().unwrap().starts_with("blake3:"));
    assert!(!line.to_string().contains("a.txt"), "the audit line contains an argument value");
}

#[tokio::test]
async fn the_tool_list_is_private_and_not_cached() {
    let gateway = TestGateway::new().await;
    let result = gateway.client().await.modern("tools/list", json!({})).await.json()["result"].clone();
    assert_eq!(
        (result["resultType"].as_str(), result["ttlMs"].as_i64(), result["cacheScope"].as_str()),
        (Some("complete"), Some(0), Some("private"))
    );
    assert_eq!(result["tools"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn only_known_parameters_reach_the_server() {
    let gateway = TestGateway::new().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let params = json!({"name": "echo", "arguments": {}, "task": {"ttl": 1}, "inputResponses": {}, "requestState": "x",
        "_meta": {"traceparent": trace, "secret": "x", "progressToken": 1,
            "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"}}});
    assert_eq!(gateway.client().await.modern("tools/call", params).await.status, 200);
    let received = gateway.shim.calls()[0].params.clone();
    let trace = received["_meta"]["traceparent"].clone();
    assert_eq!(received, json!({"name": "echo", "arguments": {}, "_meta": {"traceparent": trace}}));
}

#[tokio::test]
async fn headers_and_meta_are_required_and_have_to_match() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    for missing in 0..headers.len() {
        let headers: Vec<_> = headers
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != missing)
            .map(|(_, (name, value))| (*name, value.as_str()))
            .collect();
        let answer = client.send(Method::POST, "/files/mcp", &headers, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.error().0), (400, -32020), "without header {missing}");
    }
    let with =
        |version: &'static str| [("mcp-protocol-version", version), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    let answer = client.send(Method::POST, "/files/mcp", &with("2027-01-01"), body.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.error().0), (400, -32022));
    assert_eq!(answer.json()["error"]["data"]["requested"], "2027-01-01");
    let bare = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}});
    let answer = client.send(Method::POST, "/files/mcp", &with("2026-07-28"), bare.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.error().0), (400, -32602));
    assert!(gateway.shim.calls().is_empty());
}

#[tokio::test]
async fn methods_of_other_revisions_are_not_found() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for method in [
        "ping",
        "initialize",
        "resources/list",
        "tools/execute",
        "logging/setLevel",
        "prompts/list",
        "resources/templates/list",
    ] {
        let answer = client.modern(method, json!({})).await;
        assert_eq!((answer.status.as_u16(), answer.error().0), (404, -32601), "{method}");
    }
    let lines = gateway.audit_lines(7).await;
    assert_eq!(
        (lines[2]["method"].as_str(), lines[2]["reason"].as_str()),
        (Some("resources/list"), Some("method_unknown"))
    );
}

#[tokio::test]
async fn a_notification_is_accepted_and_a_session_id_ignored() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "notifications/cancelled"), ("mcp-session-id", "x")];
    let body = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(client.send(Method::POST, "/files/mcp", &headers, body).await.status, 202);
}
