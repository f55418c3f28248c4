//! Servers and shims that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_fleet_policy::units::Bytes as Size;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Act, World};

#[tokio::test]
async fn connections_are_kept_and_a_dead_one_is_not_used_again() {
    let world = World::new().await;
    let mut client = world.client().await;
    for _ in 0..5 {
        client.call("echo", json!({})).await;
    }
    assert_eq!(world.shim.connections(), 1);
    world.shim.act(Act::Close);
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    world.shim.answer("{\"result\":{}}\n");
    assert_eq!(client.call("echo", json!({})).await.json()["result"], json!({"resultType": "complete"}));
    assert_eq!(world.shim.seen().len(), 7, "a call was made twice");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_after_its_timeout() {
    let world = World::with(|policy| policy.servers[0].limits.timeout = Duration::from_millis(200)).await;
    world.shim.act(Act::Hang);
    let started = Instant::now();
    assert_eq!(world.client().await.call("echo", json!({})).await.denial().0, "upstream_timeout");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(world.ledger.spent().await.calls, 1, "it may have taken effect, so it is paid");
    assert_eq!(world.line(1).await["decision"], "failed");
    crate::support::eventually("the shim hears of it", || world.shim.abandoned() == 1).await;
}

#[tokio::test]
async fn garbage_is_withheld() {
    let world = World::new().await;
    let mut client = world.client().await;
    for garbage in [
        "not json\n",
        "{}\n",
        "{\"result\":[1]}\n",
        "{\"result\":{\"a\":1,\"a\":2}}\n",
        "{\"result\":{},\"error\":{}}\n",
        "{\"surprise\":{}}\n",
        "{\"error\":{\"message\":\"no code\"}}\n",
        "{\"result\":{\"_meta\":{\"mcp-fleet.dev/denial\":{}}}}\n",
        "{\"result\":{\"resultType\":\"task\"}}\n",
        "",
        "{\"result\":{}}",
    ] {
        world.shim.answer(garbage);
        assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_invalid", "{garbage:?}");
    }
    world.shim.act(Act::Break(Bytes::from_static(b"{\"result\":{")));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    world.shim.act(Act::Status(503));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    assert_eq!(world.ledger.spent().await.calls, 12, "only a call answered with another status is free");
}

#[tokio::test]
async fn a_result_that_is_too_large_is_refused_and_never_cut() {
    let world = World::with(|policy| policy.servers[0].limits.max_response = Size::new(1000)).await;
    let mut client = world.client().await;
    let result = |length: usize| format!("{{\"result\":{{\"a\":\"{}\"}}}}\n", "x".repeat(length - 8));
    world.shim.answer(&result(1000));
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["a"].as_str().unwrap().len(), 992);
    world.shim.answer(&result(1001));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "response_too_large");
    world.shim.answer(&result(10_000_000));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "response_too_large");
}

#[tokio::test]
async fn a_result_passes_with_everything_in_it_however_it_is_cut_into_pieces() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.initialize("2025-11-25").await;
    let result = r#"{ "content":[{"type":"x-new","big":12345678901234567890,"text":"é😀\u2028"}], "structuredContent":{"n":1.0},"_meta":{"vendor":1},"isError":false}"#;
    let whole = Bytes::from(format!("{{\"result\":{result}}}\n"));
    let pieces = (0..whole.len()).step_by(7).map(|at| whole.slice(at..(at + 7).min(whole.len()))).collect();
    for act in [Act::Answer(whole.clone()), Act::Slowly(pieces, Duration::from_millis(1))] {
        world.shim.act(act);
        let answer = client.legacy_call("echo", json!({})).await;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        assert_eq!(std::str::from_utf8(&answer.body).unwrap(), expected);
    }
}

#[tokio::test]
async fn an_error_of_the_server_is_passed_on() {
    let world = World::new().await;
    world.shim.answer("{\"error\":{\"code\":-32602,\"message\":\"bad\",\"data\":{\"x\":1}}}\n");
    let answer = world.client().await.call("echo", json!({})).await;
    assert_eq!(answer.json()["error"], json!({"code": -32602, "message": "bad", "data": {"x": 1}}));
    assert_eq!(world.line(1).await["decision"], "allowed");
}

#[tokio::test]
async fn a_server_without_an_address_or_behind_a_closed_port_is_unavailable_for_free() {
    for upstream in [None, Some("127.0.0.1:1".parse().unwrap())] {
        let world = World::with(|policy| policy.servers[0].upstream = upstream).await;
        let mut client = world.client().await;
        assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
        assert!(world.ledger.has_granted());
        assert_eq!(world.ledger.spent().await.calls, 0);
        let list = client.modern("tools/list", json!({})).await;
        assert_eq!(list.json()["error"]["data"]["reason"], "upstream_unavailable");
    }
}

#[tokio::test]
async fn a_shim_with_another_identity_is_not_spoken_to() {
    let world =
        World::with(|policy| policy.servers[0].identity = "spiffe://mcp-fleet.dev/tenant/t-1/server/mail-uid".into())
            .await;
    assert_eq!(world.client().await.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    assert!(world.shim.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_cannot_describe_itself_is_not_asked_by_every_caller() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let world = World::with(|policy| policy.servers[0].upstream = Some(address)).await;
    let started = Instant::now();
    let mut client = world.client().await;
    for _ in 0..10 {
        let answer = client.modern("tools/list", json!({})).await;
        assert_eq!(answer.json()["error"]["data"]["reason"], "upstream_unavailable");
    }
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(asked.load(Ordering::SeqCst) <= 1 + seconds, "asked {} times", asked.load(Ordering::SeqCst));
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.modern("tools/list", json!({})).await;
    assert!(asked.load(Ordering::SeqCst) > 1, "never asked again");
}
