//! Policy, control stream and ledger, as a gateway sees them.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_control::version::AUDIENCE;
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{BudgetBalance, LeaseRequest, SpendItem, SpendReport, from_gateway};
use mcp_fleet_control::{Form, feature, snapshot};
use mcp_fleet_crds::condition::{ConditionType, is_true_as_of};
use mcp_fleet_crds::{MCPBudget, MCPLedger, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use mcp_fleet_policy::model::TenantPolicy;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::gateway::{Gateway, pod, token};
use crate::support::{
    OPERATOR_NAMESPACE, create, eventually, server, settled, tenant, unique, wait_for, wait_for_reason,
    wait_until_open, with_operator,
};

/// Creates a tenant with a server, a scope, a principal that holds it, and a budget. Returns name and UID of the tenant.
pub(crate) async fn tenant_with_policy(client: &Client) -> (String, String) {
    let name = unique("ctl");
    let spec = json!({"spendLimit": {"currency": "USD", "period": "Month", "amount": "100.00"}});
    let uid = tenant(client, &name, spec).await.uid().unwrap();
    wait_for(&Api::<Secret>::namespaced(client.clone(), &format!("{name}-mcp")), "gateway-policy").await;
    wait_until_open(client, &name).await;
    let tools = json!({"tools": [{"name": "read", "class": "Read", "price": {"perCall": "0.001"}}]});
    server(client, &name, "files", tools).await;
    create(
        &Api::<MCPScope>::namespaced(client.clone(), &name),
        object(
            "MCPScope",
            &name,
            "files-read",
            &json!({
        "serverRef": {"name": "files"}, "classes": ["Read"]}),
        ),
    )
    .await;
    create(
        &Api::<MCPPrincipal>::namespaced(client.clone(), &name),
        object(
            "MCPPrincipal",
            &name,
            "coder",
            &json!({
        "scopeRefs": [{"name": "files-read"}]}),
        ),
    )
    .await;
    create(
        &Api::<MCPBudget>::namespaced(client.clone(), &name),
        object(
            "MCPBudget",
            &name,
            "monthly",
            &json!({
        "period": "Month", "amount": "0.01", "selector": {"principalRefs": [{"name": "coder"}]}}),
        ),
    )
    .await;
    (name, uid)
}

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": namespace}})
}

async fn patch_principal(client: &Client, namespace: &str, spec: Value) {
    let api: Api<MCPPrincipal> = Api::namespaced(client.clone(), namespace);
    api.patch("coder", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
}

#[tokio::test]
async fn a_policy_reaches_the_gateway_and_status_shows_it() {
    let client = with_operator().await;
    let (name, uid) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let whole = |policy: &TenantPolicy| {
        policy.principals.first().is_some_and(|principal| !principal.grants.is_empty()) && policy.budgets.len() == 2
    };
    let policy = gateway.policy(whole).await;
    assert_eq!((policy.tenant.as_str(), policy.tenant_uid.as_str()), (name.as_str(), uid.as_str()));
    assert!(gateway.freshness().await.generation >= policy.generation);
    let pod = gateway.pod.clone();
    // It acknowledges later policies too.
    tokio::spawn(async move { gateway.policy(|_| false).await });
    wait_for_reason(&Api::<MCPScope>::namespaced(client.clone(), &name), "files-read", "Ready", "Reconciled").await;
    wait_for_reason(&Api::<MCPBudget>::namespaced(client.clone(), &name), "monthly", "PolicyCurrent", "Enforced").await;
    let tenants: Api<MCPTenant> = Api::all(client.clone());
    wait_for_reason(&tenants, &name, "PolicyCurrent", "Enforced").await;
    let status = tenants.get(&name).await.unwrap().status.unwrap();
    assert_eq!(status.gateways[0].pod, pod);
}

/// Returns `resourceVersion` and Events of the objects of a tenant, except of the scope `files-read`.
async fn untouched(client: &Client, namespace: &str) -> (Vec<Option<String>>, Vec<String>) {
    async fn version<K>(client: &Client, namespace: &str, name: &str) -> Option<String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        Api::<K>::namespaced(client.clone(), namespace).get(name).await.unwrap().resource_version()
    }
    let versions = vec![
        version::<MCPServer>(client, namespace, "files").await,
        version::<MCPPrincipal>(client, namespace, "coder").await,
        version::<MCPBudget>(client, namespace, "monthly").await,
    ];
    let events = Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await.unwrap();
    let about = |event: Event| Some((event.regarding?.name?, event.reason?));
    let mut events: Vec<String> = events
        .into_iter()
        .filter_map(about)
        .filter(|(name, _)| name != "files-read")
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect();
    events.sort_unstable();
    (versions, events)
}

#[tokio::test]
async fn an_edit_of_one_object_writes_no_other_objects_status() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    tokio::spawn(async move { gateway.policy(|_| false).await });
    let scopes: Api<MCPScope> = Api::namespaced(client.clone(), &name);
    wait_for_reason(&scopes, "files-read", "PolicyCurrent", "Enforced").await;
    wait_for_reason(&Api::<MCPServer>::namespaced(client.clone(), &name), "files", "PolicyCurrent", "Enforced").await;
    wait_for_reason(&Api::<MCPPrincipal>::namespaced(client.clone(), &name), "coder", "Ready", "Reconciled").await;
    wait_for_reason(&Api::<MCPBudget>::namespaced(client.clone(), &name), "monthly", "Ready", "Reconciled").await;
    // A status is held back for two seconds at most.
    let before = settled(|| untouched(&client, &name)).await;
    for classes in [json!(["Read", "Write"]), json!(["Write"]), json!(["Read"])] {
        let edit = Patch::Merge(json!({"spec": {"classes": classes}}));
        let generation = scopes.patch("files-read", &PatchParams::default(), &edit).await.unwrap().metadata.generation;
        eventually("the edit is enforced", || async {
            let status = scopes.get("files-read").await.ok()?.status?;
            let is_enforced = is_true_as_of(&status.conditions, ConditionType::PolicyCurrent, generation);
            is_enforced.then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(untouched(&client, &name).await, before);
    }
}

#[tokio::test]
async fn each_of_twenty_revocations_reaches_the_gateway() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    gateway.policy(|policy| policy.principals.len() == 1).await;
    let start = Timestamp::now().as_second() - 3600;
    for trial in 0..20 {
        let until = start + trial;
        let at = Timestamp::from_second(until).unwrap().to_string();
        patch_principal(&client, &name, json!({"revokeIssuedBefore": at})).await;
        gateway.policy(|policy| policy.principals[0].revoked_until == Some(until)).await;
    }
    patch_principal(&client, &name, json!({"revokeIssuedBefore": null, "suspend": true})).await;
    let policy = gateway.policy(|policy| policy.principals[0].suspended).await;
    assert_eq!(policy.principals[0].revoked_until, Some(start + 19), "a revocation was undone");
}

#[tokio::test]
async fn a_bad_edit_keeps_the_grants_in_force_and_status_explains_it() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    gateway.policy(|policy| policy.principals.first().is_some_and(|coder| coder.grants.len() == 1)).await;
    patch_principal(&client, &name, json!({"scopeRefs": [{"name": "files-read"}, {"name": "typo"}], "suspend": true}))
        .await;
    let policy = gateway.policy(|policy| policy.principals[0].suspended).await;
    assert_eq!(policy.principals[0].grants.len(), 1);
    let principals: Api<MCPPrincipal> = Api::namespaced(client.clone(), &name);
    assert!(wait_for_reason(&principals, "coder", "ResolvedRefs", "ScopeNotFound").await.contains("typo"));
    let scopes: Api<MCPScope> = Api::namespaced(client.clone(), &name);
    create(&scopes, object("MCPScope", &name, "lost", &json!({"serverRef": {"name": "nowhere"}}))).await;
    wait_for_reason(&scopes, "lost", "ResolvedRefs", "ServerNotFound").await;
    let budgets: Api<MCPBudget> = Api::namespaced(client.clone(), &name);
    create(
        &budgets,
        object(
            "MCPBudget",
            &name,
            "lost",
            &json!({
        "period": "Day", "calls": 5, "selector": {"principalRefs": [{"name": "nobody"}]}}),
        ),
    )
    .await;
    wait_for_reason(&budgets, "lost", "Ready", "TargetNotFound").await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_published_again() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &format!("{name}-mcp"));
    let generation = |secret: &Secret| {
        let index = secret.data.as_ref()?.get("index.json")?;
        serde_json::from_slice::<Value>(&index.0).ok()?["generation"].as_u64()
    };
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let before = gateway.policy(|policy| policy.budgets.len() == 2).await.generation;
    let junk = json!({"data": {"chunk-0": "AAAA"}});
    secrets.patch("gateway-policy", &PatchParams::default(), &Patch::Merge(junk)).await.unwrap();
    let repaired = gateway.policy(|policy| policy.generation > before).await.generation;
    secrets.delete("gateway-policy", &DeleteParams::default()).await.unwrap();
    let again = gateway.policy(|policy| policy.generation > repaired).await.generation;
    let found = wait_for(&secrets, "gateway-policy").await;
    assert!(generation(&found) >= Some(again));
}

#[tokio::test]
async fn a_generation_of_another_leader_is_always_exceeded() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let mut policy = gateway.policy(|policy| policy.budgets.len() == 2).await;
    policy.generation += 7;
    policy.suspended = true;
    let foreign = policy.generation;
    let files = snapshot::write_files(foreign, &mcp_fleet_control::encode(&policy), None).unwrap();
    let data: std::collections::BTreeMap<String, ByteString> =
        files.into_iter().map(|(key, value)| (key, ByteString(value))).collect();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &format!("{name}-mcp"));
    let patch = Patch::Merge(json!({"data": data}));
    secrets.patch("gateway-policy", &PatchParams::default(), &patch).await.unwrap();
    let after = gateway.policy(|policy| policy.generation > foreign).await;
    assert!(!after.suspended, "the policy of a former leader was kept");
}

#[tokio::test]
async fn a_gateway_of_the_previous_version_gets_policies_in_the_form_that_it_knows() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let older = feature::known().into_iter().filter(|feature| feature != "shared").collect();
    let mut old = Gateway::connect_with(&client, &format!("{name}-mcp"), older).await;
    let mut new = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let complete = |policy: &TenantPolicy| policy.budgets.len() == 2 && !policy.principals.is_empty();
    let (expanded, shared) = (old.policy(complete).await, new.policy(complete).await);
    assert_eq!((old.form, new.form), (Some(Form::Expanded), Some(Form::Shared)));
    assert_eq!(expanded.principals, shared.principals);
    // Both acknowledge what they got, and both count.
    let principals: Api<MCPPrincipal> = Api::namespaced(client.clone(), &name);
    wait_for_reason(&principals, "coder", "PolicyCurrent", "Enforced").await;
    // The previous version of the operator can read the snapshot.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &format!("{name}-mcp"));
    let secret = wait_for(&secrets, "gateway-policy").await;
    let files = secret.data.unwrap().into_iter().map(|(key, value)| (key, value.0)).collect();
    assert_eq!(snapshot::read_policy(&files).unwrap().form, Form::Expanded);
}

/// Reads the published snapshot from all its Secrets. Returns the numbers of its chunks, and the policy.
async fn published(secrets: &Api<Secret>) -> Option<(Vec<usize>, TenantPolicy)> {
    let found = secrets.list(&ListParams::default()).await.unwrap();
    let files = found
        .into_iter()
        .filter(|secret| secret.name_any().starts_with("gateway-policy"))
        .flat_map(|secret| secret.data.unwrap_or_default())
        .map(|(key, value)| (key, value.0))
        .collect();
    let policy = snapshot::read_policy(&files).ok()?.policy;
    Some((snapshot::read_index(&files).unwrap().chunks, policy))
}

#[tokio::test]
async fn a_policy_that_is_too_large_for_one_secret_is_split() {
    let client = with_operator().await;
    let name = unique("large");
    tenant(&client, &name, json!({})).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &format!("{name}-mcp"));
    wait_for(&secrets, "gateway-policy").await;
    wait_until_open(&client, &name).await;
    // A million random characters, which compress by a quarter at most.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = |length: usize| -> String {
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                    [usize::try_from(state >> 58).unwrap()],
            )
        })
        .take(length)
        .collect()
    };
    for number in 0..9 {
        let values: Vec<String> = (0..128).map(|_| noise(1000)).collect();
        let argument = json!({"name": "value", "type": "Enum", "enum": {"values": values}});
        let tools = json!({"tools": [{"name": "read", "class": "Read", "arguments": [argument]}]});
        server(&client, &name, &format!("files-{number}"), tools).await;
    }
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    gateway.policy(|policy| policy.servers.len() == 9).await;
    let (mut chunks, mut before) = published(&secrets).await.unwrap();
    assert_eq!(chunks.len(), 2, "{chunks:?}");

    // Chunks that the index names are never overwritten, and a leader that has to read all of them finds them intact.
    for servers in [10, 11, 12] {
        if servers == 11 {
            let note = Patch::Merge(json!({"metadata": {"annotations": {"touched": "by hand"}}}));
            secrets.patch("gateway-policy", &PatchParams::default(), &note).await.unwrap();
        }
        server(&client, &name, &format!("more-{servers}"), json!({})).await;
        let policy = gateway.policy(|policy| policy.servers.len() == servers).await;
        let (now, found) = published(&secrets).await.unwrap();
        assert_eq!(found.generation, policy.generation);
        let turns = found.generation - before.generation;
        assert!(now[0] == 0 && (now[1] != chunks[1]) == (turns % 2 == 1), "{now:?}, {turns} after {chunks:?}");
        (chunks, before) = (now, found);
    }

    // A chunk that someone deletes is restored without waiting for the next change.
    secrets.delete(&snapshot::secret_name(chunks[1]), &DeleteParams::default()).await.unwrap();
    eventually("the snapshot is complete again", || published(&secrets)).await;
}

#[tokio::test]
async fn a_lease_is_charged_settled_and_shown() {
    let client = with_operator().await;
    let (name, uid) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let policy = gateway.policy(|policy| policy.budgets.len() == 2 && !policy.principals.is_empty()).await;
    let budget = policy.budgets.iter().find(|budget| budget.name == "monthly").unwrap().uid.clone();
    let ask = |request, amount, minimum_amount| {
        let budget_uid = budget.clone();
        from_gateway::Message::LeaseRequest(LeaseRequest {
            request,
            budget_uid,
            amount,
            minimum_amount,
            calls: 0,
            minimum_calls: 0,
        })
    };
    gateway.send(ask(1, 4000, 1000)).await;
    let lease = gateway.lease().await;
    assert_eq!((lease.outcome(), lease.amount, lease.request), (Outcome::Granted, 4000, 1));
    assert!(lease.valid_ms > 60_000 && lease.period_end > lease.period_start);
    let told =
        |balance: Option<BudgetBalance>| balance.map(|told| (told.left_amount, told.spent_amount, told.spent_calls));
    assert_eq!(told(lease.balance), Some((Some(6000), 0, 0)));
    let ledgers: Api<MCPLedger> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let selector = ListParams::default().labels(&format!("mcp-fleet.dev/budget-uid={budget}"));
    let book = ledgers.list(&selector).await.unwrap().items.remove(0);
    assert_eq!(book.spec.leases[0].granted.amount, Some(4000), "the lease was granted before it was charged");
    assert_eq!(book.spec.tenant.uid, uid);

    let items = vec![SpendItem {
        principal: format!("{name}/coder"),
        server: "files".into(),
        tool: "read".into(),
        amount: 3000,
        calls: 3,
    }];
    let report = SpendReport {
        lease: lease.lease.clone(),
        budget_uid: budget.clone(),
        sequence: 1,
        amount: 3000,
        calls: 3,
        r#final: true,
        items,
    };
    for _ in 0..2 {
        gateway.send(from_gateway::Message::Spend(report.clone())).await;
        let ack = gateway.acknowledged(&lease.lease, 1).await;
        assert_eq!(told(ack.balance), Some((Some(7000), 3000, 3)));
    }
    let book = ledgers.list(&selector).await.unwrap().items.remove(0);
    assert_eq!((book.spec.settled.amount, book.spec.leases.len(), book.spec.items[0].calls), (3000, 0, 3));

    gateway.send(ask(2, 9_000_000, 8000)).await;
    assert_eq!(gateway.lease().await.outcome(), Outcome::Exhausted);
    let budgets: Api<MCPBudget> = Api::namespaced(client.clone(), &name);
    wait_for_reason(&budgets, "monthly", "Exhausted", "LimitReached").await;
    let spending = budgets.get("monthly").await.unwrap().status.unwrap().spending.unwrap();
    assert_eq!(spending.spent.unwrap().to_string(), "0.003");
    assert_eq!(spending.remaining.unwrap().to_string(), "0.007");

    gateway.send(ask(3, 2000, 1000)).await;
    assert_eq!(gateway.lease().await.outcome(), Outcome::Granted);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &format!("{name}-mcp"));
    pods.delete(&gateway.pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    drop(gateway);
    eventually("the leases of the deleted pod are forfeited", || async {
        let book = ledgers.list(&selector).await.unwrap().items.remove(0);
        (book.spec.forfeited.amount == 2000 && book.spec.leases.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn only_a_pod_of_the_tenants_gateway_can_connect() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let runtime = format!("{name}-mcp");
    let real = pod(&client, &runtime, None).await;

    let wrong_audience = token(&client, &runtime, "gateway", &real, "https://kubernetes.default.svc").await;
    let status = Gateway::dial(&client, &real.0, &wrong_audience).await.err().unwrap();
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status:?}");
    let status = Gateway::dial(&client, &real.0, "not-a-token").await.err().unwrap();
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status:?}");

    // A pod with the gateway's ServiceAccount that the operator's Deployment did not create.
    let mut pod_alone = wait_for(&Api::<Pod>::namespaced(client.clone(), &runtime), &real.0).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &runtime);
    pod_alone.metadata = serde_json::from_value(json!({"name": unique("alone"), "namespace": runtime})).unwrap();
    let alone = pods.create(&PostParams::default(), &pod_alone).await.unwrap();
    let alone = (alone.name_any(), alone.uid().unwrap());
    let stolen = token(&client, &runtime, "gateway", &alone, AUDIENCE).await;
    let status = Gateway::dial(&client, &alone.0, &stolen).await.err().unwrap();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");

    let mut gateway =
        Gateway::dial(&client, &real.0, &token(&client, &runtime, "gateway", &real, AUDIENCE).await).await.unwrap();
    gateway.policy(|_| true).await;
    let newer = Gateway::dial(&client, &real.0, &token(&client, &runtime, "gateway", &real, AUDIENCE).await).await;
    assert!(newer.is_ok());
    gateway.ended().await;
}
