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
    check_operator(&objects)?;
    check_placement(&objects)
}

/// Values that say where the operator's pods run.
const PLACEMENT: &str = r#"
imagePullSecrets: [{name: registry}, {name: other}]
nodeSelector: {pool: infra}
tolerations: [{key: pool, value: infra}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
topologySpreadConstraints:
- {topologyKey: topology.kubernetes.io/zone, maxSkew: 1, whenUnsatisfiable: DoNotSchedule}
- {topologyKey: rack, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchExpressions: [{key: a, operator: Exists}]}}
priorityClassName: "4711"
podLabels: {team: platform}
podAnnotations: {example.com/note: text}
"#;

/// The operator's pods run where the values say, and selectors find them all the same.
fn check_placement(default: &[Value]) -> Result<()> {
    let values = repository().join("target/placement-values.yaml");
    fs::create_dir_all(repository().join("target"))?;
    fs::write(&values, PLACEMENT)?;
    let path = values.to_string_lossy();
    let objects = objects("mcp-fleet", NAMESPACE, &["--values", &path])?;
    let template = |objects: &[Value]| -> Result<Value> {
        Ok(named(objects, "Deployment", "mcp-fleet-operator")?["spec"]["template"].clone())
    };
    let (before, placed) = (template(default)?, template(&objects)?);
    let values: Value = serde_yaml_ng::from_str(PLACEMENT)?;
    let spec = &placed["spec"];
    for field in ["imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"] {
        ensure!(spec[field] == values[field], "the operator's pods do not have {field}: {}", spec[field]);
        ensure!(before["spec"][field].is_null(), "the operator's pods have {field} by default");
    }
    let (labels, selector) = (&placed["metadata"]["labels"], &before["spec"]["topologySpreadConstraints"][0]);
    let selector = &selector["labelSelector"];
    let spread = &spec["topologySpreadConstraints"];
    ensure!(
        spread.as_array().is_some_and(|all| all.len() == 2),
        "the constraints do not replace the default: {spread}"
    );
    ensure!(spread[0]["topologyKey"] == "topology.kubernetes.io/zone", "the constraint is another one: {spread}");
    ensure!(spread[0]["labelSelector"] == *selector, "a constraint does not count the operator's pods: {spread}");
    ensure!(
        spread[1]["labelSelector"] == values["topologySpreadConstraints"][1]["labelSelector"],
        "a constraint counts other pods than the values say: {spread}"
    );
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        ensure!(labels[key] == *value, "selectors do not find the operator's pods: {labels}");
    }
    ensure!(labels["team"] == "platform", "podLabels are not set: {labels}");
    ensure!(placed["metadata"]["annotations"]["example.com/note"] == "text", "podAnnotations are not set");
    let arguments = strings(&spec["containers"][0]["args"]);
    for name in ["registry", "other"] {
        let flag = format!("--image-pull-secret={name}");
        ensure!(arguments.contains(&flag.as_str()), "the operator does not know the pull secret {name}: {arguments:?}");
    }
    for refused in [
        r"podLabels.app\.kubernetes\.io/component=gateway",
        r"podLabels.mcp-fleet\.dev/tenant=acme",
        "podLabels.pod-template-hash=abc",
        r"podAnnotations.kubectl\.kubernetes\.io/restartedAt=now",
        "imagePullSecrets[0].name=other/registry",
        "imagePullSecrets[0].name=registry,imagePullSecrets[1].name=registry",
        "topologySpreadConstraints[0].maxSkew=1",
    ] {
        ensure!(render("mcp-fleet", &["--set", refused]).is_err(), "the chart accepts {refused}");
    }
    Ok(())
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
