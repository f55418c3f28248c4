//! Objects that are made to stop the operator.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPBudget;
use serde_json::json;

use crate::support::{
    create, eventually, namespace, tenant, unfiltered_client, unique, wait_for, wait_until_open, with_operator,
};

#[tokio::test]
async fn field_managers_that_cannot_be_read_stop_nobody() {
    let client = with_operator().await;
    let (stranger, name) = (unique("stranger"), unique("managers"));
    // The label names no tenant, so the API server takes the object.
    namespace(&client, &stranger, &[("mcp-fleet.dev/tenant", "nobody")]).await;
    let budget = |namespace: &str, name: &str| {
        json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPBudget",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"period": "Month", "amount": "5.00"}})
    };
    let strangers = Api::<MCPBudget>::namespaced(client.clone(), &stranger);
    create(&strangers, budget(&stranger, "poisoned")).await;
    let mut fields = json!({});
    for _ in 0..130 {
        fields = json!({"f:a": fields});
    }
    let managers = json!({"metadata": {"managedFields": [{
        "manager": "stranger", "operation": "Update", "apiVersion": "mcp-fleet.dev/v1alpha1",
        "time": "9999-12-31T23:59:59Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields},
    }]}});
    strangers.patch("poisoned", &PatchParams::default(), &Patch::Merge(&managers)).await.unwrap();
    let raw = Api::<MCPBudget>::namespaced(unfiltered_client().await, &stranger);
    assert!(raw.get("poisoned").await.is_err(), "the object can be read, so this test shows nothing");

    // The watch of the kind, and what it feeds, go on for everybody else.
    tenant(&client, &name, json!({"spendLimit": {"currency": "USD", "period": "Month", "amount": "100.00"}})).await;
    wait_for(&Api::<Secret>::namespaced(client.clone(), &format!("{name}-mcp")), "gateway-policy").await;
    wait_until_open(&client, &name).await;
    let budgets = Api::<MCPBudget>::namespaced(client.clone(), &name);
    create(&budgets, budget(&name, "monthly")).await;
    eventually("the operator saw the budget of the tenant", || async {
        budgets.get("monthly").await.ok()?.status.filter(|status| !status.conditions.is_empty())
    })
    .await;
    assert_eq!(strangers.get("poisoned").await.unwrap().name_any(), "poisoned");
    strangers.delete("poisoned", &DeleteParams::default()).await.unwrap();
}
