//! Input that no honest client sends.

use std::net::Ipv4Addr;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{TestGateway, eventually, tls, tls_from, until};

/// Less than a gateway waits for the rest of a request, and more than it needs to reject one.
const AT_ONCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn messages_that_parsers_read_differently_are_rejected() {
    // What is wrong inside the arguments of a call is told in its result, see `forms`.
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let call = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{arguments}}}}}"#
        )
    };
    for body in [
        call(r#"{"text":"a"}"#) + "{}",
        call(r#"{},"arguments":{"text":"a"}"#),
        call(r#"{},"argument\u0073":{"text":1e400}"#),
        format!("[{}]", call("{}")),
        call("{}").replace("tools/call\"", "tools/call\",\"method\":\"ping\""),
        "\u{feff}".to_owned() + &call("{}"),
        call("{}").replace("\"id\":1", "\"id\":null"),
        "{".to_owned(),
        String::new(),
    ] {
        let answer = client.legacy(body.clone()).await;
        assert_eq!(answer.status == 200, answer.json().get("id").is_some(), "{body:.100}");
        assert!(matches!(answer.error().0, -32700 | -32600), "{body:.100}");
    }
    assert_eq!(client.legacy(&b"\xff\xfe\x00"[..]).await.status, 400);
    assert!(gateway.shim.calls().is_empty());
    assert_eq!(gateway.audit_line(11).await["reason"], "message_invalid");
    let labels = r#"reason="message_invalid",server="files",tenant="acme""#;
    assert!((gateway.metric("mcp_pod_denials_total", labels) - 10.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_body_above_the_limit_is_rejected_with_or_without_a_length() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let answer = client.send(Method::POST, "/files/mcp", &[], vec![b' '; 300 * 1024]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["data"]["reason"].as_str()),
        (413, Some("request_too_large"))
    );

    let mut stream = tls(gateway.address, &gateway.pki).await;
    let head = format!(
        "POST /files/mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        gateway.pki.token(crate::support::Token::default())
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"8000\r\n".to_vec(), vec![b' '; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..20 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test]
async fn requests_that_are_not_http_or_not_mcp_are_rejected() {
    let gateway = TestGateway::new().await;
    let garbage: [&[u8]; 4] = [
        b"\x00\x01\x02\x03 garbage\r\n\r\n",
        b"POST /files/mcp HTTP/9.9\r\n\r\n",
        b"POST /files/mcp HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /files/mcp HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    ];
    for bytes in garbage {
        let mut stream = tls(gateway.address, &gateway.pki).await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(AT_ONCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection stayed open after {bytes:?}");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut stream = tls(gateway.address, &gateway.pki).await;
    let headers = format!("x-header: {}\r\n", "y".repeat(500)).repeat(200);
    let _ = stream.write_all(format!("POST /files/mcp HTTP/1.1\r\nhost: a\r\n{headers}\r\n").as_bytes()).await;
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    assert!(answer[..read].starts_with(b"HTTP/1.1 431") || read == 0, "{}", String::from_utf8_lossy(&answer[..read]));

    let mut client = gateway.client().await;
    let wrong = [("content-type", "text/plain")];
    assert_eq!(client.send(Method::POST, "/files/mcp", &wrong, "{}").await.status, 415);
    let wrong = [("accept", "text/html")];
    assert_eq!(client.send(Method::POST, "/files/mcp", &wrong, "{}").await.status, 406);
    assert_eq!(client.call("echo", json!({})).await.status, 200, "the gateway does not serve any more");
}

#[tokio::test]
async fn the_token_is_checked_before_the_body_is_read() {
    let gateway = TestGateway::new().await;
    let mut stream = tls(gateway.address, &gateway.pki).await;
    let head = "POST /files/mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test]
async fn silent_connections_of_one_address_are_limited() {
    let gateway = TestGateway::new().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(gateway.address).await.unwrap());
    }
    let refused = || gateway.metric("mcp_pod_connections_refused_total", "cause=\"handshakes\"");
    // All others have a handshake, until they are closed in turn.
    eventually("136 of one address are refused", || refused() >= 136.0).await;
    assert!(refused() < 137.0, "{} are refused", refused());
    drop(silent);
    let served = async || tls_from(Ipv4Addr::LOCALHOST, gateway.address, &gateway.pki, &[]).await.is_ok();
    until("the address is served again", served).await;
}

#[tokio::test]
async fn a_long_id_or_progress_token_is_rejected_and_not_repeated() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let long = "x".repeat(257);
    let call = |id: &str, token: &str| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": "echo", "_meta": {"progressToken": token}}})
        .to_string()
    };
    let answer = client.legacy(call(&long, "t")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (400, &json!(null)));
    assert!(answer.json().as_object().unwrap().get("id").is_none());
    assert_eq!(answer.error(), (-32600, "Invalid request: an id has at most 256 bytes".to_owned()));
    let answer = client.legacy(call("i", &long)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &json!("i")));
    assert_eq!(answer.error(), (-32602, "Invalid params: progressToken has at most 256 bytes".to_owned()));
    assert!(gateway.shim.calls().is_empty());
    assert_eq!(gateway.audit_line(3).await["reason"], "message_invalid");
    let answer = client.legacy(call(&long[..256], &long[..256])).await;
    assert_eq!(answer.json()["id"], long[..256]);
}
