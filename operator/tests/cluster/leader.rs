//! Leader election: one replica leads, and another takes over.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use mcp_fleet_operator::kubernetes::leader::{Candidacy, Elector, Leadership};
use tokio_util::sync::CancellationToken;

use crate::support::{OPERATOR_NAMESPACE, client, eventually, namespace, operator_client, unique, with_operator};

/// Starts a replica. A lease lasts this many seconds.
fn start(client: &Client, namespace: &str, name: &str, seconds: u32, stop: &CancellationToken) -> Leadership {
    let (sender, leadership) = Leadership::channel();
    tokio::spawn(
        Elector::new(client.clone(), namespace, name, seconds, sender, &Candidacy::default()).run(stop.clone()),
    );
    leadership
}

#[tokio::test]
async fn one_of_two_replicas_leads_and_a_release_hands_over_at_once() {
    let client = client().await;
    let place = unique("lease");
    namespace(&client, &place, &[]).await;
    let (stop_a, stop_b) = (CancellationToken::new(), CancellationToken::new());
    let a = start(&client, &place, "a", 15, &stop_a);
    eventually("a leads", || async { a.is_leader().then_some(()) }).await;
    let b = start(&client, &place, "b", 15, &stop_b);
    tokio::time::sleep(Duration::from_secs(17)).await;
    assert!(a.is_leader() && !b.is_leader());
    let started = Instant::now();
    stop_a.cancel();
    eventually("b leads", || async { b.is_leader().then_some(()) }).await;
    // Otherwise, b would have had to wait for the end of the lease.
    assert!(started.elapsed() < Duration::from_secs(12), "took {:?}", started.elapsed());
    assert!(!a.is_leader());
    stop_b.cancel();
}

#[tokio::test]
async fn a_silent_leader_is_replaced_and_a_leader_that_loses_the_lease_stops() {
    let client = client().await;
    let place = unique("silent");
    namespace(&client, &place, &[]).await;
    // A leader that never renews.
    let lease = serde_json::json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "mcp-fleet-operator", "namespace": place},
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 3},
    });
    let leases: Api<Lease> = Api::namespaced(client.clone(), &place);
    crate::support::create(&leases, lease).await;
    let stop = CancellationToken::new();
    let started = Instant::now();
    let a = start(&client, &place, "a", 3, &stop);
    eventually("a leads", || async { a.is_leader().then_some(()) }).await;
    assert!(started.elapsed() > Duration::from_secs(3), "took {:?}", started.elapsed());

    // Another replica takes the Lease by force. The leader notices at its next renewal, and stops.
    let stolen = Patch::Merge(serde_json::json!({"spec": {"holderIdentity": "thief"}}));
    leases.patch("mcp-fleet-operator", &PatchParams::default(), &stolen).await.unwrap();
    eventually("a steps down", || async { (!a.is_leader()).then_some(()) }).await;
    stop.cancel();
}

#[tokio::test]
async fn the_api_server_treats_the_lease_as_leader_election() {
    let client = with_operator().await;
    let levels: Api<PriorityLevelConfiguration> = Api::all(client);
    let level = levels.get("leader-election").await.unwrap().metadata.uid.unwrap();
    let operator = operator_client().await;
    let level_of = async |path: &str| {
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        let answer = operator.send(request).await.unwrap();
        answer.headers()["x-kubernetes-pf-prioritylevel-uid"].to_str().unwrap().to_owned()
    };
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/mcp-fleet-operator");
    // The API server learns of a new schema by a watch.
    eventually("the Lease has the priority level", || async { (level_of(&leases).await == level).then_some(()) }).await;
    assert_ne!(level_of("/apis/mcp-fleet.dev/v1alpha1/mcptenants?limit=1").await, level);
}
