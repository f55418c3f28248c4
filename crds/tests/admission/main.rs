//! Tests of what a real API server accepts and refuses; run them with `cargo xtask test api`. Every YAML file in
//! `cases/` is a table: a valid object, and variations of it with the error message that each must cause, if any.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::needless_pass_by_value, reason = "JSON that is written where it is passed reads better by value")]

#[path = "../cases/mod.rs"]
mod cases;
mod namespaces;
mod operator;
mod reserved;
mod size;
mod support;

use cases::{Case, Table, compare, merged};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::Cluster;

/// Reads a table from the folder `cases`.
macro_rules! table {
    ($name:literal) => {
        serde_yaml_ng::from_str::<Table>(include_str!(concat!("../cases/", $name, ".yaml"))).expect($name)
    };
}

#[tokio::test]
async fn invalid_tenants_are_refused() {
    run(table!("tenant")).await;
}

#[tokio::test]
async fn invalid_servers_are_refused() {
    run(table!("server")).await;
}

#[tokio::test]
async fn invalid_scopes_are_refused() {
    run(table!("scope")).await;
}

#[tokio::test]
async fn invalid_principals_are_refused() {
    run(table!("principal")).await;
}

#[tokio::test]
async fn invalid_budgets_are_refused() {
    run(table!("budget")).await;
}

/// Tries each case as a value at depth 1, 2 and 3, in a server and in a scope.
#[tokio::test]
async fn invalid_arguments_are_refused_at_every_depth() {
    let cluster = Cluster::connect().await;
    let cases: Vec<Case> = serde_yaml_ng::from_str(include_str!("../cases/argument.yaml")).unwrap();
    let mut failures = Vec::new();
    for case in &cases {
        for (depth, argument) in support::at_depths(case.patch.as_ref().unwrap()) {
            for object in support::with_argument(&argument) {
                let name = format!("{} (depth {depth}, {})", case.name, object["kind"].as_str().unwrap());
                let answer = cluster.dry_run(&object).await;
                failures.extend(compare(&name, answer, case.refused.as_deref()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn absent_fields_get_the_documented_defaults() {
    let cluster = Cluster::connect().await;
    let tenant = cluster
        .dry_run(&json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant", "metadata": {"name": "acme"},
            "spec": {"namespace": {"name": "acme"}}}))
        .await
        .unwrap();
    let expected = json!({"namespace": {"name": "acme", "adoptionPolicy": "Labelled", "deletionPolicy": "Retain"},
        "podSecurity": "Restricted", "traffic": {}, "images": {"referencePolicy": "Digest"}, "workspaces": {"reattach": "Never"},
        "credentials": {"lifetime": "1h", "overlap": "10m"}, "policy": {"staleAfter": {"read": "1m", "write": "15s"}},
        "gateway": {"replicas": 1, "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "256Mi"},
        }},
        "endpoint": {}, "builtInTools": "Enabled", "enforcement": "Keep", "suspend": false});
    assert_eq!(tenant["spec"], expected);
}

#[tokio::test]
async fn an_object_is_not_ready_before_the_operator_has_seen_it() {
    let cluster = Cluster::connect().await;
    for table in [table!("tenant"), table!("server"), table!("scope"), table!("principal"), table!("budget")] {
        let created = cluster.create(&merged(&table.good, &json!({"metadata": {"name": "unseen"}}))).await;
        let created = created.unwrap();
        let read = cluster.api(&created).get("unseen").await.unwrap();
        assert_eq!(read.data["status"], mcp_fleet_crds::condition::pending_status(), "{}", created["kind"]);
        cluster.delete(&created).await.unwrap();
    }
}

/// Runs every case of a table: creates the object with the patch, or creates it and then changes it.
async fn run(table: Table) {
    let cluster = Cluster::connect().await;
    let mut failures = Vec::new();
    failures.extend(compare("the valid object", cluster.dry_run(&table.good).await, None));
    for (number, case) in table.cases.iter().enumerate() {
        let answer = match (&case.patch, &case.change) {
            (Some(patch), None) => cluster.dry_run(&merged(&table.good, patch)).await,
            (None, Some(change)) => changed(&cluster, &table.good, change, number).await,
            _ => panic!("{}: a case must have either patch or change", case.name),
        };
        failures.extend(compare(&case.name, answer, case.refused.as_deref()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Creates an object, changes it and returns the API server's answer to the change.
async fn changed(cluster: &Cluster, good: &Value, change: &Value, number: usize) -> Result<Value, String> {
    let name = format!("change-{number}");
    let first = merged(good, &json!({"metadata": {"name": name}}));
    let api = cluster.api(&first);
    let object = serde_json::from_value(first).unwrap();
    api.create(&PostParams::default(), &object)
        .await
        .map_err(|error| format!("failed to create the object: {error}"))?;
    let answer = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await;
    api.delete(&name, &kube::api::DeleteParams::default()).await.unwrap();
    answer.map(|object| serde_json::to_value(object).unwrap()).map_err(|error| error.to_string())
}
