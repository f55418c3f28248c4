//! Objects for the tests of this crate and of the operator.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use mcp_fleet_crds::{MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use mcp_fleet_policy::model::{
    Budget, BudgetMode, Period, Selector, StaleAfter, TenantLimits, TenantPolicy, VerificationKey,
};
use mcp_fleet_policy::units::Micros;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::control_server::Alarms;
use crate::guard::{Guarded, GuardedKind, Unreadable};
use crate::policy::compile::{Compiled, Limit, Previous, TenantInputs, UnreadableInputs, compile};

/// Keeps what people are told: the name of the object, and the reason.
#[derive(Debug, Default)]
pub struct RecordedAlarms(pub Mutex<Vec<(Option<String>, String)>>);

#[tonic::async_trait]
impl Alarms for RecordedAlarms {
    async fn alarm(&self, about: &ObjectReference, reason: &str, _action: &str, _note: String) {
        self.0.lock().push((about.name.clone(), reason.to_owned()));
    }
}

/// The time of [`inputs`], Unix seconds.
pub const NOW: i64 = 1_795_000_000;

/// UID of the tenant of [`policy`].
pub const TENANT: &str = "7b1f4c1e-55a0-4f0e-9a0b-0d9d3c5c2f11";

/// Returns an object of the namespace `acme`, whose UID is `uid-<name>`.
pub fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: &Value) -> Arc<T> {
    let value = json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": "acme", "uid": format!("uid-{name}"), "generation": 1},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

/// Returns the tenant `acme`, with these fields of its spec.
pub fn tenant(spec: &Value) -> Arc<MCPTenant> {
    let mut whole = json!({
        "namespace": {"name": "acme"},
        "images": {"allowed": ["mcp-fleet.local/*"], "referencePolicy": "Any"},
        "spendLimit": {"currency": "USD", "period": "Month", "amount": "500.00"},
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    object("MCPTenant", "acme", &whole)
}

/// Returns a required argument `path` of a tool, within a folder.
pub fn path(within: &str) -> Value {
    json!({"name": "path", "required": true, "type": "Path", "path": {"within": [within]}})
}

/// Returns the server `files` with these tools.
pub fn server(tools: &Value) -> Arc<MCPServer> {
    object(
        "MCPServer",
        "files",
        &json!({
            "source": {"type": "Stdio", "stdio": {"image": "mcp-fleet.local/files:dev", "command": ["files"]}},
            "tools": tools,
        }),
    )
}

/// Returns the tools `read`, `list` and `write`.
pub fn catalogue() -> Value {
    json!([
        {"name": "read", "class": "Read", "arguments": [path("/workspace")], "price": {"perCall": "0.001"}},
        {"name": "list", "class": "Read", "arguments": [path("/workspace")]},
        {"name": "write", "class": "Write", "arguments": [
            path("/workspace"), {"name": "content", "required": true, "type": "String", "string": {"maxLength": 100}}]},
    ])
}

/// Returns a scope.
pub fn scope(name: &str, spec: &Value) -> Arc<MCPScope> {
    object("MCPScope", name, spec)
}

fn reports() -> Arc<MCPScope> {
    let tools = json!([{"name": "read", "arguments": [path("/workspace/reports")]}]);
    scope("reports", &json!({"serverRef": {"name": "files"}, "tools": tools, "classes": ["Read"]}))
}

/// Returns the principal `coder`.
pub fn principal(spec: &Value) -> Arc<MCPPrincipal> {
    object("MCPPrincipal", "coder", spec)
}

/// Returns objects of one tenant that compile.
pub fn inputs() -> TenantInputs {
    TenantInputs {
        tenant: tenant(&json!({})),
        servers: vec![server(&catalogue())],
        scopes: vec![reports()],
        principals: vec![principal(&json!({"scopeRefs": [{"name": "reports"}]}))],
        budgets: vec![object(
            "MCPBudget",
            "daily",
            &json!({
            "selector": {"principalRefs": [{"name": "coder"}], "classes": ["Write", "Read"]},
            "period": "Day", "amount": "5.00"}),
        )],
        unreadable: UnreadableInputs::default(),
        addresses: BTreeMap::from([("uid-files".to_owned(), vec!["10.244.0.7:8443".parse().unwrap()])]),
        keys: vec![VerificationKey { kid: "k".into(), point: vec![4; 65] }],
        session_key: vec![7; 32],
        audience: "https://gateway.acme-mcp.svc".into(),
        other_audiences: vec![],
        issuer: "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/uid-acme".into(),
        revocations: BTreeMap::new(),
        now: NOW,
    }
}

/// Returns a compiled policy as it is after its publication.
pub fn published(compiled: &Compiled) -> Previous {
    let mut policy = compiled.policy.clone();
    policy.generation += 1;
    Previous { policy: Arc::new(policy), scopes: compiled.scopes.clone() }
}

/// Returns the published policy of [`inputs`].
pub fn previous() -> Previous {
    published(&compile(&inputs(), None, Limit::DEFAULT))
}

/// Decodes an object that cannot be read.
pub fn unreadable<K: GuardedKind>(object: Value) -> Unreadable<K> {
    match serde_json::from_value(object).unwrap() {
        Guarded::Unreadable(unreadable) => *unreadable,
        Guarded::Readable(object) => panic!("{object:?} can be read"),
    }
}

/// Returns a budget of this many calls, and of one unit of money, a day.
pub fn budget(calls: u64) -> Budget {
    Budget {
        name: "daily".into(),
        uid: "b-1".into(),
        selector: Selector::default(),
        period: Period::Day,
        amount: Some(Micros::new(1_000_000)),
        calls: Some(calls),
        mode: BudgetMode::Enforce,
        top_up: None,
    }
}

/// Returns a policy with these budgets and nothing else.
pub fn policy(budgets: Vec<Budget>) -> TenantPolicy {
    TenantPolicy {
        tenant: "acme".into(),
        tenant_uid: TENANT.into(),
        generation: 1,
        suspended: false,
        audience: String::new(),
        other_audiences: vec![],
        issuer: String::new(),
        keys: Vec::new(),
        session_key: Vec::new(),
        traffic: TenantLimits::default(),
        built_in_tools: true,
        allowed_origins: vec![],
        stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
        currency: Some("USD".parse().unwrap()),
        servers: Vec::new(),
        principals: Vec::new(),
        budgets,
    }
}
