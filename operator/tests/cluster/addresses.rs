//! From the EndpointSlices of a server to the policy of its gateway.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use mcp_fleet_policy::model::TenantPolicy;
use serde_json::json;

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::{unique, wait_for, with_operator};

#[tokio::test]
async fn the_addresses_of_a_servers_pods_reach_the_gateway() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let runtime = format!("{name}-mcp");
    let mut gateway = Gateway::connect(&client, &runtime).await;
    gateway.policy(|policy| policy.servers.len() == 1 && policy.servers[0].addresses.is_empty()).await;
    let service = wait_for(&Api::<Service>::namespaced(client.clone(), &runtime), "mcp-files-pods").await;
    // What the controller of EndpointSlices makes of the Service; there is none here.
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &runtime);
    let slice = |pods: &[(&str, bool)]| {
        let endpoints: Vec<_> =
            pods.iter().map(|(ip, ready)| json!({"addresses": [ip], "conditions": {"ready": ready}})).collect();
        serde_json::from_value::<EndpointSlice>(json!({
            "metadata": {"name": "mcp-files-pods-x1", "labels": service.metadata.labels}, "addressType": "IPv4",
            "ports": [{"name": "https", "port": 8443}], "endpoints": endpoints,
        }))
        .unwrap()
    };
    slices.create(&PostParams::default(), &slice(&[("192.0.2.8", false)])).await.unwrap();
    let has = |addresses: &'static [&'static str]| {
        let wanted: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        move |policy: &TenantPolicy| policy.servers[0].addresses == wanted
    };
    gateway.policy(has(&["192.0.2.8:8443"])).await;
    let both = slice(&[("192.0.2.8", true), ("192.0.2.9", true)]);
    slices.replace("mcp-files-pods-x1", &PostParams::default(), &both).await.unwrap();
    gateway.policy(has(&["192.0.2.8:8443", "192.0.2.9:8443"])).await;
    // Anybody can copy the labels to another namespace.
    let theirs: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let mut copied = slice(&[("192.0.2.66", true)]);
    copied.metadata.name = Some(unique("copied"));
    theirs.create(&PostParams::default(), &copied).await.unwrap();
    slices.replace("mcp-files-pods-x1", &PostParams::default(), &slice(&[("192.0.2.9", true)])).await.unwrap();
    gateway.policy(has(&["192.0.2.9:8443"])).await;
}
