//! Servers with several pods, and pods that are replaced.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Behaviour, Shim, TestGateway, eventually, until};

/// Starts more shims of the gateway's server, and adds them to the policy.
async fn with_pods(more: usize) -> (TestGateway, Vec<Shim>) {
    let gateway = TestGateway::new().await;
    let mut shims = Vec::new();
    for _ in 0..more {
        shims.push(Shim::start(&gateway.pki).await);
    }
    let addresses: Vec<_> = shims.iter().map(|shim| shim.address).collect();
    gateway.change_policy(|policy| policy.servers[0].addresses.extend(addresses));
    (gateway, shims)
}

#[tokio::test]
async fn pods_take_turns() {
    let (gateway, shims) = with_pods(2).await;
    let mut client = gateway.client().await;
    for _ in 0..9 {
        assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    }
    let calls = shims.iter().chain([&gateway.shim]).map(|shim| shim.calls().len()).collect::<Vec<_>>();
    assert_eq!(calls, [3, 3, 3]);
}

#[tokio::test]
async fn a_pod_that_accepts_no_connections_is_passed_over() {
    let gateway = TestGateway::new().await;
    let nobody = "127.0.0.1:1".parse().unwrap();
    gateway.change_policy(|policy| policy.servers[0].addresses.insert(0, nobody));
    let mut client = gateway.client().await;
    for _ in 0..4 {
        assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    }
    assert_eq!(gateway.shim.calls().len(), 4, "each call is sent once");
    assert_eq!(gateway.ledger.spent().await.calls, 4);
}

#[tokio::test]
async fn a_call_that_a_pod_may_have_seen_is_not_sent_to_another() {
    let (gateway, shims) = with_pods(1).await;
    gateway.shim.set_behaviour(Behaviour::Close);
    shims[0].set_behaviour(Behaviour::Close);
    let mut client = gateway.client().await;
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    assert_eq!(gateway.shim.calls().len() + shims[0].calls().len(), 1);
}

#[tokio::test]
async fn no_call_is_sent_to_a_pod_with_another_identity() {
    let (gateway, other) = (TestGateway::new().await, TestGateway::new().await);
    // An address that a pod of another tenant has now.
    let theirs = other.shim.address;
    gateway.change_policy(|policy| policy.servers[0].addresses = vec![theirs]);
    assert_eq!(gateway.client().await.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    assert!(other.shim.calls().is_empty());
}

#[tokio::test]
async fn a_call_is_cancelled_in_the_pod_that_has_it() {
    let (gateway, shims) = with_pods(2).await;
    let all = || shims.iter().chain([&gateway.shim]);
    all().for_each(|shim| shim.set_behaviour(Behaviour::Hang));
    for number in 1..=3 {
        let in_flight = || all().map(|shim| shim.calls().len()).sum::<usize>() == number;
        gateway.client().await.call_and_hang_up("echo", json!({}), "the call is in flight", in_flight).await;
        eventually("the call is cancelled", || all().map(Shim::cancelled).sum::<usize>() == number).await;
    }
    assert!(all().all(|shim| shim.calls().len() == 1 && shim.cancelled() == 1));
}

#[tokio::test]
async fn connections_to_pods_that_stay_are_kept() {
    let (gateway, shims) = with_pods(1).await;
    let mut client = gateway.client().await;
    for _ in 0..4 {
        client.call("echo", json!({})).await;
    }
    assert_eq!((gateway.shim.connections(), shims[0].connections()), (1, 1));
    let stays = shims[0].address;
    gateway.change_policy(|policy| policy.servers[0].addresses = vec![stays]);
    for _ in 0..4 {
        client.call("echo", json!({})).await;
    }
    assert_eq!((gateway.shim.connections(), shims[0].connections()), (1, 1));
    assert_eq!(shims[0].calls().len(), 6);
}

#[tokio::test]
async fn tools_are_listed_while_a_pod_is_replaced_and_those_of_the_new_pod_after_it() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let described = |answer: Value| answer["result"]["tools"].to_string().contains("Reads a file");
    assert!(described(client.modern("tools/list", json!({})).await.json()));
    gateway.change_policy(|policy| policy.servers[0].addresses.clear());
    assert!(described(client.modern("tools/list", json!({})).await.json()));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    let new = Shim::start(&gateway.pki).await;
    // A new pod counts the starts of its server from one again.
    new.set_report(r#"{"version":1,"initialize":{},"tools":[{"name":"read","description":"Newer","inputSchema":{"type":"object"}}]}"#);
    gateway.change_policy(|policy| policy.servers[0].addresses = vec![new.address]);
    let newer = async || client.modern("tools/list", json!({})).await.json().to_string().contains("Newer");
    until("the tools of the new pod are listed", newer).await;
}

#[tokio::test]
async fn a_call_that_finds_no_pod_is_decided_again_if_the_policy_changed() {
    let gateway = TestGateway::new().await;
    // A listener that answers no handshake: the call waits while the policy changes.
    let silent = Shim::start(&gateway.pki).await;
    let held = silent.hold_handshakes().await;
    let (old, new) = (silent.address, gateway.shim.address);
    gateway.change_policy(|policy| policy.servers[0].addresses = vec![old]);
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.call("echo", json!({})).await.json() });
    eventually("the call waits", || silent.knocking() == 1).await;
    gateway.change_policy(|policy| policy.servers[0].addresses = vec![new]);
    gateway.shim.set_behaviour(Behaviour::Answer(Bytes::from_static(b"{\"result\":{\"from\":\"new\"}}\n")));
    // The connection times out after three seconds.
    assert_eq!(call.await.unwrap()["result"]["from"], "new");
    drop(held);
    assert_eq!((silent.calls().len(), gateway.shim.calls().len()), (0, 1));
}
