//! Reports of tool servers: the operator keeps the last one of each, for gateways that start while the server is down.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use mcp_fleet_control::server_report::compress;
use mcp_fleet_control::wire::{KeptServerReport, SeenServerReport, WantedServerReports, from_gateway, from_operator};
use mcp_fleet_crds::MCPServer;

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::{wait_for, wait_until_gone, with_operator};

const SECRET: &str = "mcp-files-report";

fn seen(server_uid: &str, digest: u8) -> SeenServerReport {
    let report = compress(&[digest; 100]).unwrap();
    SeenServerReport { server_uid: server_uid.into(), digest: vec![digest; 32], report }
}

#[tokio::test]
async fn the_last_report_of_a_server_is_kept_and_reaches_the_next_gateway_until_the_server_is_deleted() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let runtime = format!("{name}-mcp");
    let mut first = Gateway::connect(&client, &runtime).await;
    let policy = first.policy(|policy| !policy.servers.is_empty()).await;
    let uid = policy.servers[0].uid.clone();
    first.kept(BTreeMap::is_empty).await;
    // The report of a stranger is ignored, and one that is kept already is not written again.
    for report in [seen("uid-of-a-stranger", 1), seen(&uid, 1), seen(&uid, 1)] {
        first.send(from_gateway::Message::SeenServerReport(report)).await;
    }
    first.kept(|kept| kept.get(&uid) == Some(&vec![1; 32])).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &runtime);
    let secret = wait_for(&secrets, SECRET).await;
    assert_eq!(secret.labels()["mcp-fleet.dev/server-uid"], uid);
    // At most one a minute is written.
    first.send(from_gateway::Message::SeenServerReport(seen(&uid, 2))).await;

    let mut next = Gateway::connect(&client, &runtime).await;
    next.kept(|kept| kept.len() == 1 && kept.get(&uid) == Some(&vec![1; 32])).await;
    let server_uids = vec!["uid-of-a-stranger".into(), uid.clone()];
    next.send(from_gateway::Message::WantedServerReports(WantedServerReports { server_uids })).await;
    let given = loop {
        let message = next.next().await.expect("the stream ended");
        if let from_operator::Message::KeptServerReport(given) = message {
            break given;
        }
    };
    let SeenServerReport { server_uid, digest, report } = seen(&uid, 1);
    assert_eq!(given, KeptServerReport { server_uid, digest, report });
    assert_eq!(secrets.get(SECRET).await.unwrap().resource_version(), secret.resource_version());

    let servers: Api<MCPServer> = Api::namespaced(client.clone(), &name);
    servers.delete("files", &DeleteParams::default()).await.unwrap();
    wait_until_gone(&secrets, SECRET).await;
}
