//! Who may do what in a tenant's namespaces, and what the operator does if someone gets in its way there.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mcp_fleet_crds::MCPTenant;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::support::{
    client_as, create, eventually, namespace, tenant, unique, untyped, wait_for, wait_for_reason, wait_until_gone,
    with_operator,
};

const BINDING: &str = "mcp-fleet-operator";
const CEILINGS: &str = "mcp-fleet-tenant";

fn tenants(client: &Client) -> Api<MCPTenant> {
    Api::all(client.clone())
}

fn bindings(client: &Client, namespace: &str) -> Api<RoleBinding> {
    Api::namespaced(client.clone(), namespace)
}

/// Returns a binding as someone else would make it, under the name of the operator's.
fn foreign_binding(namespace: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": BINDING, "namespace": namespace, "finalizers": ["test/held"]},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}})
}

/// Returns the client of a user that has the rights of the role `admin` in a namespace. No controller fills that role
/// here, so the user has the roles from which Kubernetes makes it.
async fn administrator(client: &Client, namespace: &str) -> Client {
    let name = format!("admin-of-{namespace}");
    for role in ["edit", "admin", "view"].map(|role| format!("system:aggregate-to-{role}")) {
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role.replace(':', "-"), "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
        create(&bindings(client, namespace), binding).await;
    }
    let user = client_as(&name).await;
    eventually("the administrator has rights", || async {
        bindings(&user, namespace).list(&kube::api::ListParams::default()).await.ok()
    })
    .await;
    user
}

async fn wait_for_own_binding(client: &Client, namespace: &str) {
    eventually(&format!("the operator's binding in {namespace} is its own"), || async {
        let found = bindings(client, namespace).get_opt(BINDING).await.unwrap()?;
        (found.role_ref.name == "mcp-fleet-operator-tenant").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_administrator_of_the_namespace_cannot_lock_the_operator_out() {
    let client = with_operator().await;
    let name = unique("squatted");
    namespace(&client, &name, &[]).await;
    let admin = administrator(&client, &name).await;
    // Before the namespace belongs to a tenant, its administrator takes the names that the operator needs.
    create(&bindings(&admin, &name), foreign_binding(&name)).await;
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), &name);
    let map = json!({"metadata": {"name": CEILINGS, "finalizers": ["test/held"]}, "immutable": true,
        "data": {"ceilings.yaml": "none"}});
    create(&maps, map).await;
    let label = json!({"metadata": {"labels": {"mcp-fleet.dev/tenant": name}}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(&name, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    tenant(&client, &name, json!({})).await;
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;
    wait_for_own_binding(&client, &name).await;
    assert_ne!(maps.get(CEILINGS).await.unwrap().data.unwrap()["ceilings.yaml"], "none");

    // From then on, the names are out of reach.
    let refused = |answer: Result<(), kube::Error>| {
        let message = answer.unwrap_err().to_string();
        assert!(message.contains("belong to the operator"), "{message}");
    };
    let (params, held) = (PatchParams::default(), json!({"metadata": {"finalizers": ["test/held"]}}));
    refused(bindings(&admin, &name).delete(BINDING, &DeleteParams::default()).await.map(drop));
    refused(bindings(&admin, &name).patch(BINDING, &params, &Patch::Merge(&held)).await.map(drop));
    refused(maps.delete(CEILINGS, &DeleteParams::default()).await.map(drop));
    refused(maps.patch(CEILINGS, &params, &Patch::Merge(&held)).await.map(drop));
    refused(maps.delete_collection(&DeleteParams::default(), &kube::api::ListParams::default()).await.map(drop));
}

#[tokio::test]
async fn a_replaced_binding_is_created_again() {
    let client = with_operator().await;
    let name = unique("replaced");
    tenant(&client, &name, json!({})).await;
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;
    for place in [name.clone(), format!("{name}-mcp")] {
        let bindings = bindings(&client, &place);
        let role = bindings.get(BINDING).await.unwrap().role_ref.name;
        eventually("someone replaces the binding", || async {
            let _ = bindings.delete(BINDING, &DeleteParams::default()).await;
            let foreign = serde_json::from_value(foreign_binding(&place)).unwrap();
            bindings.create(&PostParams::default(), &foreign).await.ok()
        })
        .await;
        eventually("the binding is the operator's again", || async {
            bindings.get_opt(BINDING).await.unwrap().filter(|found| found.role_ref.name == role)
        })
        .await;
    }
}

#[tokio::test]
async fn a_tenant_whose_own_namespace_resists_is_contained_and_can_be_suspended() {
    let client = with_operator().await;
    let name = unique("resists");
    let runtime = format!("{name}-mcp");
    namespace(&client, &name, &[("mcp-fleet.dev/tenant", &name)]).await;
    let quota = json!({"metadata": {"name": "mcp-fleet", "namespace": name}, "spec": {"hard": {"pods": "1"}}});
    create(&untyped(&client, &name, "v1", "ResourceQuota"), quota).await;
    tenant(&client, &name, json!({})).await;
    let message = wait_for_reason(&tenants(&client), &name, "Stalled", "Failed").await;
    assert!(message.contains(&format!("ResourceQuota {name}/mcp-fleet")), "{message}");
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &runtime);
    assert!(policies.get_opt("default-deny").await.unwrap().is_some());
    assert!(Api::<Deployment>::namespaced(client.clone(), &runtime).get_opt("gateway").await.unwrap().is_some());

    let mut gateway = Gateway::connect(&client, &runtime).await;
    gateway.policy(|policy| !policy.suspended).await;
    let suspended = Patch::Merge(json!({"spec": {"suspend": true}}));
    tenants(&client).patch(&name, &PatchParams::default(), &suspended).await.unwrap();
    gateway.policy(|policy| policy.suspended).await;
}

#[tokio::test]
async fn a_tenant_reads_its_upper_limits_in_its_own_namespace() {
    let client = with_operator().await;
    let name = unique("reads");
    let spec = json!({
        "hard": {"pods": "7", "count/mcpscopes.mcp-fleet.dev": "9"}, "podSecurity": "Baseline",
        "traffic": {"callsPerMinute": 600}, "spendLimit": {"currency": "USD", "period": "Day", "amount": "5.00"},
        "workspaces": {"reattach": "SameName"},
    });
    tenant(&client, &name, spec).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
    let ceilings = || async {
        let data = maps.get(CEILINGS).await.unwrap().data.unwrap();
        assert_eq!(data["tenant"], name);
        serde_yaml_ng::from_str::<Value>(&data["ceilings.yaml"]).unwrap()
    };
    wait_for(&maps, CEILINGS).await;
    let mut expected = serde_json::to_value(tenants(&client).get(&name).await.unwrap().spec).unwrap();
    expected["runtimeNamespace"] = json!(format!("{name}-mcp"));
    for (kind, count) in [("mcpservers", "200"), ("mcpprincipals", "5000"), ("mcpbudgets", "256")] {
        expected["hard"][format!("count/{kind}.mcp-fleet.dev")] = json!(count);
    }
    assert_eq!(ceilings().await, expected);
    assert_eq!(expected["credentials"], json!({"lifetime": "1h", "overlap": "10m"}));

    // The copy follows the tenant, and what someone else wrote in it does not stay.
    let params = PatchParams::default();
    let forged = Patch::Merge(json!({"data": {"ceilings.yaml": "none", "more": "x"}}));
    maps.patch(CEILINGS, &params, &forged).await.unwrap();
    let raised = Patch::Merge(json!({"spec": {"traffic": {"callsPerMinute": 900}}}));
    tenants(&client).patch(&name, &params, &raised).await.unwrap();
    eventually("the copy follows", || async {
        let data = maps.get(CEILINGS).await.unwrap().data.unwrap();
        (data["ceilings.yaml"].contains("callsPerMinute: 900") && data.len() == 2).then_some(())
    })
    .await;

    tenants(&client).delete(&name, &DeleteParams::default()).await.unwrap();
    wait_until_gone(&maps, CEILINGS).await;
}

#[tokio::test]
async fn the_role_for_administrators_does_not_reach_the_upper_limits() {
    let client = with_operator().await;
    let name = unique("ambitious");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "mcp-fleet-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
    let all: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(client.clone());
    create(&all, binding).await;
    let user = client_as(&name).await;
    let principals = untyped(&user, "default", "mcp-fleet.dev/v1alpha1", "MCPPrincipal");
    eventually("the role is in force", || async { principals.list(&kube::api::ListParams::default()).await.ok() })
        .await;
    let body = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant", "metadata": {"name": name},
        "spec": {"namespace": {"name": name}}});
    let answer = tenants(&user).create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await;
    assert!(matches!(answer, Err(kube::Error::Api(status)) if status.code == 403));
}
