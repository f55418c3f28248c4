//! Objects that the API server admits and the operator cannot read. The tests make the schemas of the CRDs laxer first.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::{
    eventually, flags, free_port, operator_client, untyped, wait_for, wait_for_reason, with_operator,
};

const VERSION: &str = "mcp-fleet.dev/v1alpha1";
/// More than the operator reads as an amount, and as a number of calls.
const TOO_MUCH: &str = "9999999999";
const TOO_MANY: u64 = 5_000_000_000;

/// Replaces the schema of one field of a kind's spec.
async fn relax(client: &Client, definition: &str, field: &str, schema: Value) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let pointer = format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{field}");
    eventually(&format!("{definition} is relaxed"), || async {
        let mut found = serde_json::to_value(definitions.get(definition).await.unwrap()).unwrap();
        *found.pointer_mut(&pointer).unwrap_or_else(|| panic!("{definition} has no {field}")) = schema.clone();
        let found: CustomResourceDefinition = serde_json::from_value(found).unwrap();
        definitions.replace(definition, &PostParams::default(), &found).await.ok()
    })
    .await;
}

/// Changes the spec of an object, as soon as the API server admits the change.
async fn edit(api: &Api<DynamicObject>, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    eventually(&format!("{name} takes {patch:?}"), || async {
        api.patch(name, &PatchParams::default(), &patch).await.ok()
    })
    .await;
}

fn budgets(client: &Client, namespace: &str) -> Api<DynamicObject> {
    untyped(client, namespace, VERSION, "MCPBudget")
}

async fn relax_budgets(client: &Client) {
    relax(client, "mcpbudgets.mcp-fleet.dev", "amount", json!({"type": "string", "maxLength": 64})).await;
}

#[tokio::test]
async fn an_unreadable_budget_holds_up_nothing_but_itself() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let before = gateway.policy(|policy| policy.budgets.len() == 2 && policy.principals.len() == 1).await;
    relax_budgets(&client).await;
    let budgets = budgets(&client, &name);
    edit(&budgets, "monthly", json!({"amount": TOO_MUCH})).await;
    let message = wait_for_reason(&budgets, "monthly", "Ready", "InvalidSpec").await;
    assert!(message.starts_with("spec.amount: "), "{message}");
    wait_for_reason(&budgets, "monthly", "Stalled", "InvalidSpec").await;
    let written = wait_for(&budgets, "monthly").await;

    // Policies are still proved and change, and what was in force of the budget stays in force.
    let principals: Api<DynamicObject> = untyped(&client, &name, VERSION, "MCPPrincipal");
    edit(&principals, "coder", json!({"suspend": true})).await;
    let after = gateway.policy(|policy| policy.principals[0].suspended).await;
    assert_eq!(after.budgets, before.budgets);
    let changed = Instant::now();
    let proved_since = async {
        loop {
            let fresh = gateway.freshness().await;
            assert!(fresh.generation >= after.generation, "{fresh:?}");
            if changed.elapsed() > Duration::from_millis(fresh.age_ms.into()) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(2), proved_since).await.expect("no proof is newer than the change");
    let unchanged = wait_for(&budgets, "monthly").await;
    assert_eq!(
        unchanged.metadata.resource_version, written.metadata.resource_version,
        "it is reported again and again"
    );

    edit(&budgets, "monthly", json!({"amount": "0.02"})).await;
    let repaired = gateway.policy(|policy| policy.budgets.iter().any(|budget| budget.name == "monthly")).await;
    assert!(repaired.generation > after.generation);
    tokio::spawn(async move { gateway.policy(|_| false).await });
    wait_for_reason(&budgets, "monthly", "Ready", "Reconciled").await;
}

#[tokio::test]
async fn an_operator_that_starts_beside_unreadable_objects_becomes_ready() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    relax_budgets(&client).await;
    let budgets = budgets(&client, &name);
    edit(&budgets, "monthly", json!({"amount": TOO_MUCH})).await;
    let mut flags = flags("second-operator");
    flags.metrics_listen = (std::net::Ipv4Addr::LOCALHOST, free_port()).into();
    let (address, stop) = (flags.metrics_listen, CancellationToken::new());
    let operator = Box::pin(mcp_fleet_operator::run::run(flags, operator_client().await, stop.clone()));
    let ready = async {
        eventually("the second operator is ready", || async {
            let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: operator\r\n\r\n").await.ok()?;
            let mut response = String::new();
            stream.read_to_string(&mut response).await.ok()?;
            response.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(operator, ready);
    ended.unwrap();
    budgets.delete("monthly", &DeleteParams::default()).await.unwrap();
    eventually("the budget is gone", || async { budgets.get_opt("monthly").await.unwrap().is_none().then_some(()) })
        .await;
}

#[tokio::test]
async fn an_unreadable_principal_or_tenant_can_be_suspended() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    gateway.policy(|policy| policy.principals.first().is_some_and(|coder| coder.grants.len() == 1)).await;
    let number = json!({"type": "integer", "format": "int64"});
    let calls = "limits/properties/callsPerMinute";
    relax(&client, "mcpprincipals.mcp-fleet.dev", calls, number.clone()).await;
    let principals: Api<DynamicObject> = untyped(&client, &name, VERSION, "MCPPrincipal");
    edit(&principals, "coder", json!({"limits": {"callsPerMinute": TOO_MANY}, "suspend": true})).await;
    let policy = gateway.policy(|policy| policy.principals[0].suspended).await;
    assert_eq!(policy.principals[0].grants.len(), 1);
    let until = jiff::Timestamp::now().as_second() - 60;
    let at = jiff::Timestamp::from_second(until).unwrap().to_string();
    edit(&principals, "coder", json!({"revokeIssuedBefore": at})).await;
    gateway.policy(|policy| policy.principals[0].revoked_until == Some(until)).await;
    let message = wait_for_reason(&principals, "coder", "Ready", "InvalidSpec").await;
    assert!(message.starts_with("spec.limits.callsPerMinute: "), "{message}");

    relax(&client, "mcptenants.mcp-fleet.dev", "traffic/properties/callsPerMinute", number).await;
    let resource =
        kube::api::ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk("mcp-fleet.dev", "v1alpha1", "MCPTenant"));
    let tenants: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    edit(&tenants, &name, json!({"traffic": {"callsPerMinute": TOO_MANY}})).await;
    wait_for_reason(&tenants, &name, "Ready", "InvalidSpec").await;
    edit(&tenants, &name, json!({"suspend": true})).await;
    let policy = gateway.policy(|policy| policy.suspended).await;
    assert_eq!(policy.traffic.calls_per_minute, None, "what cannot be read is not in force");
    edit(&tenants, &name, json!({"traffic": {"callsPerMinute": 60}, "suspend": false})).await;
    let policy = gateway.policy(|policy| !policy.suspended).await;
    assert_eq!(policy.traffic.calls_per_minute, Some(60));
}

#[tokio::test]
async fn an_unreadable_server_is_torn_down() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let services: Api<Service> = Api::namespaced(client.clone(), &format!("{name}-mcp"));
    wait_for(&services, "mcp-files-pods").await;
    let anything = json!({"type": "string", "maxLength": 63});
    relax(&client, "mcpservers.mcp-fleet.dev", "source/properties/type", anything).await;
    let servers: Api<DynamicObject> = untyped(&client, &name, VERSION, "MCPServer");
    edit(&servers, "files", json!({"source": {"type": "Odd", "stdio": null}})).await;
    let message = wait_for_reason(&servers, "files", "Ready", "InvalidSpec").await;
    assert!(message.starts_with("spec.source.type: "), "{message}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(services.get_opt("mcp-files-pods").await.unwrap().is_some(), "what it runs on stays");
    servers.delete("files", &DeleteParams::default()).await.unwrap();
    eventually("the server is gone", || async { servers.get_opt("files").await.unwrap().is_none().then_some(()) })
        .await;
    let service = services.get_opt("mcp-files-pods").await.unwrap();
    assert!(service.is_none_or(|service| service.metadata.deletion_timestamp.is_some()));
}
