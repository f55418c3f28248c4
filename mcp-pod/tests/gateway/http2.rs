//! The same over HTTP/2: many requests on one connection.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::support::{Act, Token, World, eventually, modern, tls_offering};

#[tokio::test]
async fn many_calls_share_a_connection_and_one_is_cancelled_alone() {
    let world = World::new().await;
    let stream = tls_offering(world.address, &world.pki, &[b"h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let token = world.pki.token(Token::default());
    let request = || {
        let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
        let mut request = Request::post("https://gateway.acme-mcp.svc/files/mcp")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).unwrap()
    };
    let call = || {
        let answer = sender.clone().send_request(request());
        async { serde_json::from_slice::<Value>(&answer.await.unwrap().collect().await.unwrap().to_bytes()).unwrap() }
    };
    let answers = futures::future::join_all((0..20).map(|_| call())).await;
    assert!(answers.iter().all(|answer| answer["result"]["content"][0]["text"] == "done"));

    world.shim.act(Act::Hang);
    let hung = tokio::spawn(sender.clone().send_request(request()));
    eventually("the call is in flight", || world.shim.seen().len() == 21).await;
    hung.abort();
    eventually("the shim hears of it", || world.shim.abandoned() == 1).await;
    assert_eq!(world.line(21).await["reason"], "cancelled");
    world.shim.answer("{\"result\":{}}\n");
    assert_eq!(call().await["result"]["resultType"], "complete");
}
