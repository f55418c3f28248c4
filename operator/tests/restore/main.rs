//! A fleet that is restored from a backup into an empty API server, where every object has another UID.
//!
//! It follows "Backup and restore" in docs/operations.md. `MCP_FLEET_TEST_KUBECONFIG` and `MCP_FLEET_TEST_EMPTY_KUBECONFIG`
//! name the two clusters; `cargo xtask test api` starts them and sets these.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

#[path = "../cluster/gateway.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod gateway;
#[path = "../cluster/support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod support;

use std::fmt::Debug;
use std::thread::JoinHandle;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{LeaseRequest, SpendReport, from_gateway};
use mcp_fleet_crds::{MCPBudget, MCPLedger, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use gateway::Gateway;
use support::{
    OPERATOR_NAMESPACE, client, client_of, control_port, create, eventually, flags, namespace, prepare, server, tenant,
    wait_for, wait_for_reason,
};

/// Returns a new client of the second cluster, which is empty.
async fn empty_cluster() -> Client {
    client_of("MCP_FLEET_TEST_EMPTY_KUBECONFIG").await
}

const RUNTIME_NAMESPACE: &str = "acme-mcp";

/// An operator that runs until it is stopped.
struct Operator {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Operator {
    fn start(client: impl Future<Output = Client> + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let mut flags = flags("operator");
                flags.listen.set_port(control_port());
                let operator = mcp_fleet_operator::run::run(flags, client.await, stopped);
                Box::pin(operator).await.unwrap();
            });
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

/// Returns all objects of a kind as a backup has them: without what the API server and the operator add.
async fn backup<K>(api: &Api<K>) -> Vec<K>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    let found = api.list(&ListParams::default()).await.unwrap().items;
    let stripped = found.into_iter().map(|object| {
        let mut object = serde_json::to_value(object).unwrap();
        object.as_object_mut().unwrap().remove("status");
        let keep = ["name", "namespace", "labels", "annotations"];
        object["metadata"].as_object_mut().unwrap().retain(|field, _| keep.contains(&field.as_str()));
        serde_json::from_value(object).unwrap()
    });
    stripped.collect()
}

async fn restore<K>(api: &Api<K>, objects: Vec<K>)
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    for object in objects {
        match api.create(&kube::api::PostParams::default(), &object).await {
            Ok(_) => {}
            // Kubernetes makes `kube-root-ca.crt` by itself.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn in_tenant<K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), "acme")
}

fn of_operator<K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), OPERATOR_NAMESPACE)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": "acme"}})
}

fn lease(request: u64, budget_uid: &str, amount: u64) -> from_gateway::Message {
    let budget_uid = budget_uid.to_owned();
    let (minimum_amount, calls, minimum_calls) = (amount, 0, 0);
    from_gateway::Message::LeaseRequest(LeaseRequest {
        request,
        budget_uid,
        amount,
        minimum_amount,
        calls,
        minimum_calls,
    })
}

/// Returns the UIDs of the tenant's spend limit and of its budget.
async fn budgets(client: &Client) -> [String; 2] {
    let tenant = Api::<MCPTenant>::all(client.clone()).get("acme").await.unwrap().uid().unwrap();
    [tenant, in_tenant::<MCPBudget>(client).get("monthly").await.unwrap().uid().unwrap()]
}

const TOOLS: &str = r#"{"tools": [{"name": "read", "class": "Read", "price": {"perCall": "0.001"}}],
    "workspace": {"mountPath": "/workspace", "storage": "1Gi"}}"#;

/// Creates a fleet that has spent 0.003 USD and holds leases for 0.005 USD more, of 0.01 USD, and in which the tokens of
/// the principal are revoked. Returns the second of the revocation, and the UID of the server.
async fn fleet(client: &Client) -> (i64, String) {
    let spend_limit = json!({"currency": "USD", "period": "Month", "amount": "0.01"});
    tenant(client, "acme", json!({"spendLimit": spend_limit})).await;
    wait_for(&Api::<Deployment>::namespaced(client.clone(), RUNTIME_NAMESPACE), "gateway").await;
    let spec = json!({"serverRef": {"name": "files"}, "classes": ["Read"]});
    create(&in_tenant::<MCPScope>(client), object("MCPScope", "files-read", &spec)).await;
    let revoked = Timestamp::now();
    let spec = json!({"scopeRefs": [{"name": "files-read"}], "revokeIssuedBefore": revoked.to_string()});
    create(&in_tenant::<MCPPrincipal>(client), object("MCPPrincipal", "coder", &spec)).await;
    let spec = json!({"period": "Month", "amount": "0.01", "selector": {"principalRefs": [{"name": "coder"}]}});
    create(&in_tenant::<MCPBudget>(client), object("MCPBudget", "monthly", &spec)).await;
    let uid = server(client, "acme", "files", serde_json::from_str(TOOLS).unwrap()).await.uid().unwrap();
    wait_for_reason(&in_tenant::<MCPPrincipal>(client), "coder", "RevocationApplied", "Applied").await;

    let mut gateway = Gateway::connect(client, RUNTIME_NAMESPACE).await;
    gateway.policy(|policy| policy.budgets.len() == 2 && !policy.principals.is_empty()).await;
    for (number, budget_uid) in budgets(client).await.into_iter().enumerate() {
        let number = u64::try_from(number).unwrap();
        gateway.send(lease(2 * number, &budget_uid, 3000)).await;
        let spent = gateway.lease().await.lease;
        let (lease_id, sequence, calls, items) = (spent.clone(), 1, 3, vec![]);
        let report = SpendReport {
            lease: lease_id,
            budget_uid: budget_uid.clone(),
            sequence,
            amount: 3000,
            calls,
            r#final: true,
            items,
        };
        gateway.send(from_gateway::Message::Spend(report)).await;
        gateway.acknowledged(&spent, 1).await;
        gateway.send(lease(2 * number + 1, &budget_uid, 5000)).await;
        assert_eq!(gateway.lease().await.outcome(), Outcome::Granted);
    }
    (revoked.as_second(), uid)
}

#[tokio::test]
async fn a_fleet_restored_into_an_empty_cluster_keeps_its_budgets_revocations_and_workspaces() {
    mcp_fleet_operator::telemetry::init();
    let old = client().await;
    prepare(&old).await;
    let operator = Operator::start(client());
    let (revoked, server_uid) = fleet(&old).await;
    let old_uids = budgets(&old).await;
    operator.stop();

    // In the order of the documentation: what the operator keeps, then the tenants with their objects, then the operator.
    let new = empty_cluster().await;
    prepare(&new).await;
    restore(&of_operator::<Secret>(&new), backup(&of_operator(&old)).await).await;
    restore(&of_operator::<ConfigMap>(&new), backup(&of_operator(&old)).await).await;
    restore(&of_operator::<MCPLedger>(&new), backup(&of_operator(&old)).await).await;
    let mut tenants: Vec<MCPTenant> = backup(&Api::all(old.clone())).await;
    tenants.retain(|tenant| tenant.name_any() == "acme");
    for tenant in &mut tenants {
        tenant.annotations_mut().insert("mcp-fleet.dev/restored-from".into(), old_uids[0].clone());
        tenant.spec.workspaces.reattach = mcp_fleet_crds::tenant::Reattach::SameName;
    }
    restore(&Api::all(new.clone()), tenants).await;
    namespace(&new, "acme", &[("mcp-fleet.dev/tenant", "acme")]).await;
    restore(&in_tenant::<MCPScope>(&new), backup(&in_tenant(&old)).await).await;
    restore(&in_tenant::<MCPBudget>(&new), backup(&in_tenant(&old)).await).await;
    let mut principals: Vec<MCPPrincipal> = backup(&in_tenant(&old)).await;
    // Somebody reverted the revocation in Git meanwhile.
    principals[0].spec.revoke_issued_before = None;
    restore(&in_tenant::<MCPPrincipal>(&new), principals).await;
    let operator = Operator::start(empty_cluster());
    wait_for(&Api::<Deployment>::namespaced(new.clone(), RUNTIME_NAMESPACE), "gateway").await;
    // The workspace, as a claim of a volume that was restored, before the server that uses it.
    let claim = format!("workspace-{server_uid}-mcp-files-0");
    let labels = json!({"mcp-fleet.dev/server": "files", "mcp-fleet.dev/retained-since": "20261125T000000Z"});
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim, "labels": labels},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    create(&Api::<PersistentVolumeClaim>::namespaced(new.clone(), RUNTIME_NAMESPACE), body).await;
    restore(&in_tenant::<MCPServer>(&new), backup(&in_tenant(&old)).await).await;

    let new_uids = budgets(&new).await;
    assert!(new_uids.iter().all(|uid| !old_uids.contains(uid)));
    let mut gateway = Gateway::connect(&new, RUNTIME_NAMESPACE).await;
    let policy = gateway.policy(|policy| policy.budgets.len() == 2 && policy.servers.len() == 1).await;
    assert_eq!(policy.principals[0].revoked_until, Some(revoked));
    for (number, budget_uid) in new_uids.iter().enumerate() {
        let number = u64::try_from(number).unwrap();
        // 0.003 USD are spent, and nobody can tell how much of the 0.005 USD was.
        gateway.send(lease(2 * number, budget_uid, 3000)).await;
        assert_eq!(gateway.lease().await.outcome(), Outcome::Exhausted, "{budget_uid} starts again");
        gateway.send(lease(2 * number + 1, budget_uid, 2000)).await;
        assert_eq!(gateway.lease().await.outcome(), Outcome::Granted);
    }
    let mut ledgers = of_operator::<MCPLedger>(&new).list(&ListParams::default()).await.unwrap().items;
    // The backup also has the ledgers of tenants that other tests created.
    ledgers.retain(|ledger| ledger.spec.tenant.name == "acme");
    assert!(ledgers.iter().all(|ledger| new_uids.contains(&ledger.spec.budget.uid)), "{ledgers:?}");
    let revocations = of_operator::<ConfigMap>(&new).get(&format!("tenant-{}-revocations", new_uids[0])).await.unwrap();
    let principal = in_tenant::<MCPPrincipal>(&new).get("coder").await.unwrap().uid().unwrap();
    assert_eq!(revocations.data.unwrap()[&principal], revoked.to_string());
    let set = wait_for(&Api::<StatefulSet>::namespaced(new.clone(), RUNTIME_NAMESPACE), "mcp-files").await;
    let templates = set.spec.unwrap().volume_claim_templates.unwrap();
    assert_eq!(templates[0].name_any(), format!("workspace-{server_uid}"));
    operator.stop();
    assert_lost_authority_is_missed(&new).await;
}

/// Deletes the certificate authority while no operator runs. The next one refuses to make a new one.
async fn assert_lost_authority_is_missed(client: &Client) {
    let secrets = of_operator::<Secret>(client);
    let before = secrets.get("mcp-fleet-ca").await.unwrap();
    secrets.delete("mcp-fleet-ca", &kube::api::DeleteParams::default()).await.unwrap();
    let operator = Operator::start(empty_cluster());
    let events: Api<k8s_openapi::api::events::v1::Event> = of_operator(client);
    eventually("an Event reports the loss", || async {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        found.into_iter().find(|event| event.reason.as_deref() == Some("CertificateAuthorityLost"))
    })
    .await;
    assert!(secrets.get_opt("mcp-fleet-ca").await.unwrap().is_none(), "the operator made a new one");
    // As it was: a replica that waits goes on by itself.
    let mut restored = before.clone();
    restored.metadata.resource_version = None;
    secrets.create(&kube::api::PostParams::default(), &restored).await.unwrap();
    let tenants: Api<MCPTenant> = Api::all(client.clone());
    let edit = Patch::Merge(json!({"spec": {"hard": {"pods": "7"}}}));
    tenants.patch("acme", &PatchParams::default(), &edit).await.unwrap();
    let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> = Api::namespaced(client.clone(), RUNTIME_NAMESPACE);
    eventually("the operator works again", || async {
        let found = quotas.get_opt("mcp-fleet").await.unwrap()?;
        found.spec?.hard?.get("pods").filter(|pods| pods.0 == "7").cloned()
    })
    .await;
    operator.stop();
}
