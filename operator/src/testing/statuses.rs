//! What the whole operator writes to statuses when one object of many changes.

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_fleet_core::labels::FINALIZER;
use mcp_fleet_crds::MCPTenant;
use serde_json::{Value, json};

use super::fleet::{Fleet, TENANT_UID};

fn tenant() -> MCPTenant {
    serde_json::from_value(json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
        "metadata": {"name": "acme", "uid": TENANT_UID, "generation": 1, "finalizers": [FINALIZER]},
        "spec": {
            "namespace": {"name": "acme"},
            "images": {"allowed": ["registry.example.com/acme/*"], "referencePolicy": "Any"},
            "spendLimit": {"currency": "USD", "period": "Month", "amount": "100.00"},
        },
    }))
    .unwrap()
}

/// Starts an operator with one gateway.
async fn start() -> Fleet {
    let mut fleet = Fleet::start(&tenant()).await;
    fleet.connect("gateway-1");
    fleet.settle().await;
    assert_eq!(fleet.condition("mcptenants", "acme", "Ready").1, "Reconciled");
    fleet
}

/// Applies a server, scope, principal and budget `count` times, as fast as `kubectl apply` does.
async fn apply(fleet: &Fleet, count: usize) {
    let server = json!({
        "source": {"type": "Stdio", "stdio": {"image": "registry.example.com/acme/files:1", "command": ["files"]}},
        "tools": [{"name": "read", "class": "Read"}, {"name": "write", "class": "Write"}],
    });
    for number in 0..count {
        let reference = |name: &str| json!({"name": format!("{name}-{number}")});
        fleet.apply("MCPServer", &format!("files-{number}"), &server);
        fleet.apply("MCPScope", &format!("read-{number}"), &scope(number, &json!(["Read"])));
        fleet.apply("MCPPrincipal", &format!("coder-{number}"), &json!({"scopeRefs": [reference("read")]}));
        let budget = json!({"period": "Day", "calls": 100, "selector": {"principalRefs": [reference("coder")]}});
        fleet.apply("MCPBudget", &format!("daily-{number}"), &budget);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

fn scope(number: usize, classes: &Value) -> Value {
    json!({"serverRef": {"name": format!("files-{number}")}, "classes": classes})
}

/// Starts an operator with `4 * count` objects that its gateway enforces.
pub(super) async fn enforced(count: usize) -> Fleet {
    let fleet = start().await;
    apply(&fleet, count).await;
    fleet.settle().await;
    fleet.api.take_events();
    fleet
}

/// Returns the writes of objects other than the tenant.
fn of_objects(mut writes: BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    writes.remove("mcptenants/acme");
    writes
}

#[tokio::test(start_paused = true)]
async fn each_of_300_objects_becomes_ready_with_one_write() {
    let fleet = start().await;
    fleet.api.take_events();
    apply(&fleet, 75).await;
    let mut writes = fleet.settle().await;
    let events = fleet.api.take_events();
    assert_eq!(events.iter().filter(|reason| *reason == "Ready").count(), 75, "one for each server");
    assert_eq!(events.len(), 150, "and one for each credential");
    // The tenant's status shows the newest policy, but not each one.
    let of_tenant = writes.remove("mcptenants/acme").unwrap();
    assert!(of_tenant <= 2, "{of_tenant}");
    assert_eq!(writes.len(), 300);
    let excess: BTreeMap<_, _> = writes.iter().filter(|(_, count)| **count > 1).collect();
    assert!(excess.is_empty(), "{} writes in total: {excess:?}", writes.values().sum::<usize>());
    for (resource, name) in
        [("mcpservers", "files"), ("mcpscopes", "read"), ("mcpprincipals", "coder"), ("mcpbudgets", "daily")]
    {
        for number in 0..75 {
            let ready = fleet.condition(resource, &format!("{name}-{number}"), "Ready");
            assert_eq!(ready, ("True".into(), "Reconciled".into()), "{name}-{number}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_one_object_writes_no_other_objects_status() {
    let fleet = enforced(10).await;
    for classes in [json!(["Read", "Write"]), json!(["Write"]), json!(["Read"])] {
        fleet.apply("MCPScope", "read-7", &scope(7, &classes));
        let writes = of_objects(fleet.settle().await);
        assert_eq!(writes, [("mcpscopes/read-7".to_owned(), 1)].into());
        assert_eq!(fleet.api.take_events(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_no_gateway_acknowledges_is_reported_for_that_object_alone() {
    let mut fleet = enforced(3).await;
    fleet.disconnect("gateway-1");
    fleet.apply("MCPScope", "read-1", &scope(1, &json!(["Write"])));
    assert_eq!(of_objects(fleet.settle().await), [("mcpscopes/read-1".to_owned(), 1)].into());
    assert_eq!(fleet.condition("mcpscopes", "read-1", "Ready").1, "AwaitingAcknowledgement");
    assert_eq!(fleet.condition("mcptenants", "acme", "Ready").1, "AwaitingAcknowledgement");
    fleet.connect("gateway-2");
    assert_eq!(of_objects(fleet.settle().await), [("mcpscopes/read-1".to_owned(), 1)].into());
    assert_eq!(fleet.condition("mcptenants", "acme", "Ready").1, "Reconciled");
}

#[tokio::test(start_paused = true)]
async fn gateways_that_restart_or_join_change_no_status_of_an_object() {
    let mut fleet = enforced(3).await;
    fleet.connect("gateway-2");
    fleet.disconnect("gateway-1");
    assert_eq!(of_objects(fleet.settle().await), BTreeMap::new());
    fleet.disconnect("gateway-2");
    assert_eq!(of_objects(fleet.settle().await), BTreeMap::new());
    fleet.connect("gateway-3");
    assert_eq!(of_objects(fleet.settle().await), BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_writes_no_status_of_an_enforced_object() {
    let mut fleet = enforced(3).await;
    fleet.replace_leader().await;
    assert_eq!(of_objects(fleet.settle().await), BTreeMap::new(), "before a gateway has found the new leader");
    fleet.apply("MCPScope", "read-1", &scope(1, &json!(["Write"])));
    fleet.connect("gateway-1");
    assert_eq!(of_objects(fleet.settle().await), [("mcpscopes/read-1".to_owned(), 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_refused_policy_is_shown_by_the_tenant_and_by_objects_that_are_not_enforced() {
    let mut fleet = enforced(3).await;
    fleet.refuse("the gateway refused the policy");
    assert_eq!(fleet.settle().await, [("mcptenants/acme".to_owned(), 1)].into());
    assert_eq!(fleet.condition("mcptenants", "acme", "PolicyCurrent").1, "PolicyRefused");
    fleet.disconnect("gateway-1");
    fleet.apply("MCPScope", "read-1", &scope(1, &json!(["Write"])));
    assert_eq!(of_objects(fleet.settle().await), [("mcpscopes/read-1".to_owned(), 1)].into());
    assert_eq!(fleet.condition("mcpscopes", "read-1", "PolicyCurrent").1, "PolicyRefused");
}

#[tokio::test(start_paused = true)]
async fn spending_reconciles_the_budget_alone() {
    let mut fleet = enforced(3).await;
    let before = fleet.reconciles();
    for _ in 0..3 {
        fleet.lease("daily-1").await;
        assert_eq!(fleet.settle().await, [("mcpbudgets/daily-1".to_owned(), 1)].into());
    }
    let [tenants, servers, scopes, principals, budgets] = before;
    assert_eq!(fleet.reconciles(), [tenants, servers, scopes, principals, budgets + 3]);
    // The tenant shows what counts against its spendLimit.
    fleet.lease("spendLimit").await;
    fleet.lease("spendLimit").await;
    assert_eq!(fleet.settle().await, [("mcptenants/acme".to_owned(), 1)].into());
    assert_eq!(fleet.reconciles(), [tenants + 1, servers, scopes, principals, budgets + 3]);
}
