//! HTTP/2: many requests on one connection.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcp_fleet_policy::units::Bytes as Size;
use serde_json::{Value, json};

use crate::support::{Behaviour, TestGateway, Token, eventually, modern, tls_offering, until};

/// Opens an HTTP/2 connection.
async fn connect(gateway: &TestGateway) -> SendRequest<Full<Bytes>> {
    let stream = tls_offering(gateway.address, &gateway.pki, &[b"h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Returns a request with a call.
fn request(token: &str) -> Request<Full<Bytes>> {
    request_with(token, &json!({}))
}

fn request_with(token: &str, arguments: &Value) -> Request<Full<Bytes>> {
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": arguments}));
    let mut request = Request::post("https://gateway.acme-mcp.svc/files/mcp")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::from(body))).unwrap()
}

#[tokio::test]
async fn calls_share_a_connection_and_are_cancelled_separately() {
    let gateway = TestGateway::new().await;
    let sender = connect(&gateway).await;
    let token = gateway.pki.token(Token::default());
    let call = || {
        let answer = sender.clone().send_request(request(&token));
        async { serde_json::from_slice::<Value>(&answer.await.unwrap().collect().await.unwrap().to_bytes()).unwrap() }
    };
    let answers = futures::future::join_all((0..20).map(|_| call())).await;
    assert!(answers.iter().all(|answer| answer["result"]["content"][0]["text"] == "done"));

    gateway.shim.set_behaviour(Behaviour::Hang);
    let hung = tokio::spawn(sender.clone().send_request(request(&token)));
    eventually("the call is in flight", || gateway.shim.calls().len() == 21).await;
    hung.abort();
    eventually("the shim is notified", || gateway.shim.cancelled() == 1).await;
    assert_eq!(gateway.audit_line(21).await["reason"], "cancelled");
    gateway.shim.answer("{\"result\":{}}\n");
    assert_eq!(call().await["result"]["resultType"], "complete");
}

#[tokio::test]
async fn a_call_that_is_too_large_is_refused_with_its_id() {
    let gateway = TestGateway::new().await;
    let mut sender = connect(&gateway).await;
    let token = gateway.pki.token(Token::default());
    let large = request_with(&token, &json!({"text": "x".repeat(10_000_000)}));
    let (head, body) = sender.send_request(large).await.unwrap().into_parts();
    let message: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((head.status.as_u16(), &message["id"]), (413, &json!(1)));
    assert_eq!(sender.send_request(request(&token)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_with_unread_answers_gets_429_until_it_reads_them() {
    let gateway = TestGateway::with_memory(Size::new(120 << 20)).await;
    gateway.change_policy(|policy| policy.servers[0].limits.max_response = Size::new(4 << 20));
    gateway.shim.answer(&format!("{{\"result\":{{\"a\":\"{}\"}}}}\n", "x".repeat(3 << 20)));
    let (sender, token) = (connect(&gateway).await, gateway.pki.token(Token::default()));
    let call = || sender.clone().send_request(request(&token));
    let mut unread = Vec::new();
    let refused = loop {
        let answer = call().await.unwrap();
        if answer.status() == 429 {
            break answer;
        }
        assert!(unread.len() < 10, "never limited");
        unread.push(answer);
    };
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(gateway.shim.calls().len(), unread.len(), "a rejected call was forwarded");

    // Reads half of the answers and drops the others.
    let dropped = unread.split_off(unread.len() / 2);
    drop(dropped);
    for answer in unread {
        answer.into_body().collect().await.unwrap();
    }
    // The body of the 429 arrives only after the unread answers.
    let refused: Value = serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(refused["error"]["data"]["reason"], "concurrency_limited", "{refused}");
    assert!(refused.get("id").is_none(), "its body was waited for without memory: {refused}");
    until("answers that were read are not counted", async || call().await.unwrap().status() == 200).await;
}
