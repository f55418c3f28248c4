//! The Helm charts, as far as helm shows them without a cluster: they are lint-free and grant no more than intended. The
//! demo installs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use mcp_fleet_crds::names::{CEILINGS, RUNTIME_ROLE, TENANT_ROLE};
use serde::Deserialize as _;
use serde_json::Value;

use super::on_host::show;
use crate::tools::{command, go, repository};

/// A namespace other than the usual one, to notice where a template does not use the release's.
const NAMESPACE: &str = "fleet-elsewhere";

/// Namespace of the operator in tests and benchmarks.
const OPERATOR_NAMESPACE: &str = "mcp-fleet-system";

/// Kinds of MCP Fleet that hold what the platform team or the operator decides.
const NOT_FOR_TENANTS: [&str; 2] = ["mcptenants", "mcpledgers"];

/// Lints and renders both charts, and checks what they grant.
pub fn run() -> Result<()> {
    for chart in ["mcp-fleet-crds", "mcp-fleet"] {
        let path = repository().join("charts").join(chart);
        show(Command::new(go::helm()?).args(["lint", "--strict"]).arg(&path))?;
        if render(chart, &["--set", "unknown=1"]).is_ok() {
            bail!("the chart {chart} accepts an unknown value; its values.schema.json must reject it");
        }
    }
    let objects = objects("mcp-fleet", NAMESPACE, &[])?;
    for object in &objects {
        check_rules(object)
            .with_context(|| format!("{} {} grants too much", object["kind"], object["metadata"]["name"]))?;
    }
    check_user_roles(&objects)?;
    check_operator(&objects)
}

/// Returns the objects of a chart as helm renders them for a namespace, with more options for helm.
pub fn objects(chart: &str, namespace: &str, options: &[&str]) -> Result<Vec<Value>> {
    let rendered = render(chart, &[&["--namespace", namespace], options].concat())?;
    let documents = serde_yaml_ng::Deserializer::from_str(&rendered);
    let objects = documents.map(Value::deserialize).collect::<Result<Vec<_>, _>>();
    let mut objects = objects.with_context(|| format!("failed to read what the chart {chart} renders"))?;
    objects.retain(|object| !object.is_null());
    Ok(objects)
}

/// API groups of the objects with which the operator's chart configures the API server: rights, admission policies and
/// priorities.
const SERVER_GROUPS: [&str; 3] = ["rbac.", "admissionregistration.", "flowcontrol."];

/// Writes the objects with which the operator's chart configures the API server to a file, as a JSON array. Returns the path
/// of the file.
pub fn write_operator() -> Result<PathBuf> {
    let chart = repository().join("target/chart-under-test.json");
    let mut objects = objects("mcp-fleet", OPERATOR_NAMESPACE, &[])?;
    objects.retain(|object| {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        SERVER_GROUPS.iter().any(|group| version.starts_with(group))
    });
    fs::create_dir_all(repository().join("target"))?;
    fs::write(&chart, serde_json::to_vec(&objects)?).with_context(|| format!("failed to write {}", chart.display()))?;
    Ok(chart)
}

fn render(chart: &str, more: &[&str]) -> Result<String> {
    let path = repository().join("charts").join(chart);
    let arguments = ["template", "check", "--kube-version", "1.35.0"];
    command::output(Command::new(go::helm()?).args(arguments).args(more).arg(path))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn rules(object: &Value) -> impl Iterator<Item = &Value> {
    object["rules"].as_array().into_iter().flatten()
}

fn named<'o>(objects: &'o [Value], kind: &str, name: &str) -> Result<&'o Value> {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.with_context(|| format!("the chart has no {kind} {name}"))
}

/// No role has wildcards, and none can exceed itself.
fn check_rules(object: &Value) -> Result<()> {
    for rule in rules(object) {
        let verbs = strings(&rule["verbs"]);
        for part in ["apiGroups", "resources", "verbs"] {
            ensure!(!strings(&rule[part]).contains(&"*"), "a rule has a wildcard; list the {part}");
        }
        ensure!(!verbs.contains(&"escalate") && !verbs.contains(&"impersonate"), "a rule permits {verbs:?}");
        if verbs.contains(&"bind") {
            let bound: BTreeSet<_> = strings(&rule["resourceNames"]).into_iter().collect();
            ensure!(bound == BTreeSet::from([RUNTIME_ROLE, TENANT_ROLE]), "a rule permits to bind {bound:?}");
        }
    }
    Ok(())
}

/// The roles that Kubernetes adds to its own let nobody write what limits tenants.
fn check_user_roles(objects: &[Value]) -> Result<()> {
    for name in ["mcp-fleet-view", "mcp-fleet-edit", "mcp-fleet-admin"] {
        for rule in rules(named(objects, "ClusterRole", name)?) {
            let reads = strings(&rule["verbs"]).iter().all(|verb| ["get", "list", "watch"].contains(verb));
            let limits = strings(&rule["resources"]).iter().any(|kind| NOT_FOR_TENANTS.contains(kind));
            ensure!(reads || !limits, "the role {name} permits writing {:?}", rule["resources"]);
            let status = strings(&rule["resources"]).iter().any(|kind| kind.contains('/'));
            ensure!(!status, "the role {name} permits writing a status, which only the operator does");
        }
    }
    Ok(())
}

/// The operator reads no Secret or ConfigMap of the whole cluster, and its policies name it as it is installed.
fn check_operator(objects: &[Value]) -> Result<()> {
    let everywhere = named(objects, "ClusterRole", "mcp-fleet-operator")?;
    for rule in rules(everywhere) {
        for kind in ["secrets", "configmaps", "pods", "persistentvolumeclaims"] {
            ensure!(
                !strings(&rule["resources"]).contains(&kind),
                "the operator has rights on all {kind} of the cluster"
            );
        }
    }
    named(objects, "ClusterRole", RUNTIME_ROLE)?;
    for rule in rules(named(objects, "ClusterRole", TENANT_ROLE)?) {
        let named = strings(&rule["resources"]) != ["configmaps"] || strings(&rule["resourceNames"]) == [CEILINGS];
        // Those that servers are configured with, which it reads by name.
        let reads = strings(&rule["verbs"]) == ["get"];
        ensure!(named || reads, "the operator may list, watch or write all ConfigMaps of a tenant");
    }
    let policies = || objects.iter().filter(|object| object["kind"] == "ValidatingAdmissionPolicy");
    let account = format!("system:serviceaccount:{NAMESPACE}:mcp-fleet-operator");
    ensure!(policies().count() > 0, "the chart has no admission policies");
    for policy in policies() {
        let name = policy["metadata"]["name"].as_str().unwrap_or_default();
        let text = policy.to_string();
        ensure!(
            text.contains(&account) || text.contains(&format!("'{NAMESPACE}'")),
            "the policy {name} names no operator"
        );
        let binding = named(objects, "ValidatingAdmissionPolicyBinding", name)?;
        ensure!(strings(&binding["spec"]["validationActions"]) == ["Deny"], "the policy {name} is not enforced");
        ensure!(policy["spec"]["failurePolicy"] == "Fail", "the policy {name} admits what it cannot check");
    }
    Ok(())
}
