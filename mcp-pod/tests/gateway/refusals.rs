//! Refusals that come before the whole request has arrived, and requests that no endpoint is meant by.

use http::Method;
use http::header::WWW_AUTHENTICATE;
use mcp_fleet_policy::units::Bytes as Size;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{TestGateway, Token, call_until_limited, modern, tls};

/// A body that is larger than everything that the gateway and the kernel buffer, and than any server's limit.
const LARGE: usize = 10_000_000;

fn head(token: &str, path: &str, rest: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n{rest}\r\n"
    )
}

async fn status(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[tokio::test]
async fn a_client_that_reads_only_after_it_has_sent_everything_sees_the_refusal() {
    for (known, path, expected) in [
        (true, "/files/mcp", "413"),
        (true, "/nothing/mcp", "404"),
        (true, "/files", "404"),
        (false, "/files/mcp", "401"),
    ] {
        // An address of strangers has an allowance.
        let gateway = TestGateway::new().await;
        let token = if known { gateway.pki.token(Token::default()) } else { "garbage".to_owned() };
        for length in [format!("content-length: {LARGE}\r\n"), "transfer-encoding: chunked\r\n".to_owned()] {
            let mut stream = tls(gateway.address, &gateway.pki).await;
            stream.write_all(head(&token, path, &length).as_bytes()).await.unwrap();
            let (before, after) =
                if length.starts_with('c') { (String::new(), "") } else { (format!("{LARGE:x}\r\n"), "\r\n0\r\n\r\n") };
            let body = [before.as_bytes(), &vec![b' '; LARGE], after.as_bytes()].concat();
            stream.write_all(&body).await.unwrap_or_else(|error| panic!("{expected} {length}: {error}"));
            stream.flush().await.unwrap();
            assert_eq!(status(&mut stream).await, expected, "{length}");
        }
    }
}

#[tokio::test]
async fn a_principal_that_sends_too_much_sees_the_refusal_of_a_request_that_is_not_too_large() {
    let gateway = TestGateway::with(|policy| policy.servers[0].limits.max_request = Size::new(LARGE as u64)).await;
    let token = gateway.pki.token(Token::default());
    let headers = format!("content-length: {LARGE}\r\nmcp-protocol-version: 2026-07-28\r\n");
    let mut seen = Vec::new();
    // The allowance grows again at once, so this can take more than one attempt.
    while !seen.contains(&"429".to_owned()) {
        let mut stream = tls(gateway.address, &gateway.pki).await;
        assert!(call_until_limited((gateway.address, &gateway.pki), 1).await.contains(&429));
        stream.write_all(head(&token, "/files/mcp", &headers).as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; LARGE]).await.unwrap();
        seen.push(status(&mut stream).await);
        assert!(seen.len() < 100 && seen.iter().all(|status| ["400", "429"].contains(&status.as_str())), "{seen:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_too_large_ends_alone_in_a_session() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    // More than the server takes, and less than what costs the principal more than one request.
    let text = "x".repeat(300_000);
    // Some clients write the id last.
    for (before, after, id) in [(r#""id":"a","#, "", json!("a")), ("", r#","id":7"#, json!(7))] {
        let body = format!(
            r#"{{"jsonrpc":"2.0",{before}"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}","id":1}}}}{after}}}"#
        );
        let answer = client.legacy(body).await;
        let message = answer.json();
        assert_eq!((answer.status.as_u16(), &message["id"]), (200, &id));
        assert_eq!(message["error"]["data"]["reason"], "request_too_large");
        assert_eq!(client.legacy_call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    }
    // Without an id, or in 2026-07-28, the status says it too.
    let notification = format!(r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"a":"{text}"}}}}"#);
    assert_eq!(client.legacy(notification).await.status, 413);
    let answer = client.call("echo", json!({"text": text})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (413, &json!(1)));
    assert_eq!(gateway.audit_lines(7).await.iter().filter(|line| line["reason"] == "request_too_large").count(), 4);
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_refusal_whose_body_was_read() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    assert_eq!(client.send(Method::POST, "/files/mcp", &[], vec![b' '; LARGE]).await.status, 413);
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
}

/// Sends a body without end with this token. Fails if it is read for longer than the allowance of an address lasts.
async fn send_without_end(token: impl FnOnce(&TestGateway) -> String) {
    let gateway = TestGateway::new().await;
    let mut stream = tls(gateway.address, &gateway.pki).await;
    let head = head(&token(&gateway), "/files/mcp", "transfer-encoding: chunked\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"8000\r\n".to_vec(), vec![b' '; 0x8000], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    while stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
        // 200 failures at once and 20 a second, of 128 KiB each.
        assert!(sent < 128 << 20, "never refused");
    }
    assert!(sent > LARGE, "refused after {sent} bytes");
}

#[tokio::test]
async fn a_stranger_cannot_send_a_body_without_end() {
    send_without_end(|_| "garbage".to_owned()).await;
}

#[tokio::test]
async fn a_body_with_an_expired_token_takes_nothing_from_its_principal() {
    send_without_end(|gateway| gateway.pki.token(Token { issued: -2000, expires: -1000, ..Token::default() })).await;
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_is_refused_at_once() {
    let gateway = TestGateway::new().await;
    let mut stream = tls(gateway.address, &gateway.pki).await;
    let head = head("garbage", "/files/mcp", "content-length: 1000\r\nexpect: 100-continue\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(status(&mut stream).await, "401");
}

#[tokio::test]
async fn what_is_meant_for_no_endpoint_is_not_found_without_a_challenge_or_an_audit_line() {
    let gateway = TestGateway::new().await;
    let mut stranger = gateway.client().await;
    stranger.token = None;
    for (method, path) in [
        (Method::GET, "/.well-known/oauth-protected-resource"),
        (Method::GET, "/.well-known/oauth-protected-resource/files/mcp"),
        (Method::GET, "/.well-known/oauth-authorization-server"),
        (Method::GET, "/.well-known/openid-configuration"),
        (Method::POST, "/register"),
        (Method::POST, "/mcp"),
        (Method::GET, "/"),
    ] {
        let answer = stranger.send(method, path, &[], "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.headers.contains_key(WWW_AUTHENTICATE), "{path}");
    }
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS, Method::PUT] {
        for path in ["/files/mcp", "/files/mcp/", "/nothing/mcp"] {
            let answer = stranger.send(method.clone(), path, &[("accept", "text/event-stream")], "").await;
            assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "POST"), "{method}");
            assert!(!answer.headers.contains_key(WWW_AUTHENTICATE));
        }
    }
    let labels = r#"reason="request_invalid",server="",tenant="acme""#;
    assert!((gateway.metric("mcp_pod_denials_total", labels) - 22.0).abs() < f64::EPSILON, "{}", gateway.metrics());
    assert_eq!(stranger.call("echo", json!({})).await.status, 401);
    assert_eq!(gateway.audit_line(1).await["reason"], "token_missing", "an earlier request has a line");
}

#[tokio::test]
async fn a_stranger_does_not_learn_which_servers_there_are() {
    let gateway = TestGateway::new().await;
    let mut stranger = gateway.client().await;
    let (body, headers) = modern("tools/list", json!({}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for token in [None, Some("garbage".to_owned())] {
        stranger.token = token;
        let known = stranger.send(Method::POST, "/files/mcp", &headers, body.clone()).await;
        let unknown = stranger.send(Method::POST, "/nothing/mcp", &headers, body.clone()).await;
        assert_eq!((known.status.as_u16(), &known.body), (401, &unknown.body));
        assert_eq!(known.headers[WWW_AUTHENTICATE], unknown.headers[WWW_AUTHENTICATE]);
    }
}
