//! The PodMonitors of the chart: they select the pods that the chart and the operator make.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::chart::VALUES;
use super::metrics;
use crate::test::charts;
use crate::tools::{command, repository};

/// Kinds that need the Prometheus operator.
const OPTIONAL: [&str; 2] = ["PodMonitor", "PrometheusRule"];
/// What the operator renders, by component.
const SNAPSHOTS: [(&str, &str); 2] = [
    ("gateway", "tenant/desired/snapshots/mcp_fleet_operator__controllers__tenant__desired__tests__gateway.snap"),
    ("server", "server/snapshots/mcp_fleet_operator__controllers__server__desired__tests__without_workspace.snap"),
];

/// Checks the PodMonitors against the labels and ports of the pods, and that they scrape no others.
pub fn check(programs: &Path, folder: &Path) -> Result<()> {
    let default = charts::objects("mcp-fleet", "monitored", &[])?;
    ensure!(
        !default.iter().any(|object| OPTIONAL.iter().any(|kind| object["kind"] == *kind)),
        "the chart needs the Prometheus operator by default"
    );
    let objects = charts::objects("mcp-fleet", "monitored", VALUES)?;
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
    let mut pods: BTreeMap<&str, Vec<Value>> = BTreeMap::from([("operator", vec![deployment.clone()])]);
    for (component, path) in SNAPSHOTS {
        let path = repository().join("operator/src/controllers").join(path);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let body = text.splitn(3, "---\n").nth(2).context("a snapshot has no body")?;
        let documents = serde_yaml_ng::Deserializer::from_str(body).map(Value::deserialize);
        let documents = documents.collect::<Result<Vec<_>, _>>()?;
        pods.insert(component, workloads(&Value::Array(documents)));
    }
    for (component, workloads) in pods {
        let name = format!("mcp-fleet-{component}");
        let is_monitor =
            |object: &&Value| object["kind"] == "PodMonitor" && object["metadata"]["name"] == name.as_str();
        let spec = &objects.iter().find(is_monitor).with_context(|| format!("no PodMonitor {name}"))?["spec"];
        ensure!(!workloads.is_empty(), "there is no pod of {component}");
        for workload in workloads {
            check_pod(&name, spec, &workload["spec"]["template"])?;
        }
        if component != "operator" {
            check_namespaces(&name, &spec["podMetricsEndpoints"][0]["relabelings"], programs, folder)?;
        }
    }
    Ok(())
}

/// Returns the objects with a pod template, however deep they are in a snapshot.
fn workloads(value: &Value) -> Vec<Value> {
    if value["spec"]["template"]["spec"]["containers"].is_array() {
        return vec![value.clone()];
    }
    let inner =
        value.as_array().into_iter().flatten().chain(value.as_object().into_iter().flat_map(|map| map.values()));
    inner.flat_map(workloads).collect()
}

fn check_pod(name: &str, monitor: &Value, pod: &Value) -> Result<()> {
    let labels = &pod["metadata"]["labels"];
    for (label, value) in monitor["selector"]["matchLabels"].as_object().context("no selector")? {
        ensure!(labels[label] == *value, "{name} selects {label}={value}, but the pods have {}", labels[label]);
    }
    let endpoint = &monitor["podMetricsEndpoints"][0];
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ensure!(
        ports.any(|port| port["name"] == endpoint["port"] && port["containerPort"] == 9090),
        "{name} scrapes the port {}, which the pods do not have",
        endpoint["port"]
    );
    let rules = endpoint["metricRelabelings"].as_array().into_iter().flatten();
    let keeps: Vec<_> = rules.filter(|rule| rule["action"] == "keep").collect();
    let [keep] = keeps.as_slice() else { bail!("{name} does not limit which metrics it takes") };
    let kept = keep["regex"].as_str().unwrap_or_default();
    ensure!(
        kept.split('|').any(|part| part == "mcp_fleet_.*") == (name == "mcp-fleet-operator"),
        "{name} takes {kept}; only the operator may export its metrics"
    );
    let takes = |series: &str| {
        kept.split('|').any(|part| part.strip_suffix(".*").map_or(series == part, |prefix| series.starts_with(prefix)))
    };
    let component = name.trim_start_matches("mcp-fleet-");
    for series in metrics::series(component)? {
        ensure!(takes(&series), "{name} drops {series}, which a {component} exports");
    }
    for rule in endpoint["relabelings"].as_array().into_iter().flatten() {
        let source = rule["sourceLabels"][0].as_str().unwrap_or_default();
        let Some(label) = source.strip_prefix("__meta_kubernetes_pod_label_") else { continue };
        let sanitized = |label: &String| label.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let has = labels.as_object().is_some_and(|labels| labels.keys().any(|one| sanitized(one) == label));
        ensure!(has, "{name} reads {source}, which the pods do not have");
    }
    Ok(())
}

/// Checks that a pod in another namespace than a tenant's runtime namespace cannot appear as a pod of that tenant.
fn check_namespaces(name: &str, relabelings: &Value, programs: &Path, folder: &Path) -> Result<()> {
    // Prometheus has other names for the fields than its operator.
    let fields = [("sourceLabels", "source_labels"), ("targetLabel", "target_label")];
    let mut rules = relabelings.to_string();
    for (from, to) in fields {
        rules = rules.replace(from, to);
    }
    let pod = |namespace: &str| {
        let labels = [("namespace", namespace), ("pod_label_mcp_fleet_dev_tenant", "acme")];
        let labels = labels.map(|(label, value)| (format!("__meta_kubernetes_{label}"), value.into()));
        let labels: serde_json::Map<String, Value> = labels.into_iter().collect();
        json!({"targets": [format!("{namespace}:9090")], "labels": labels})
    };
    let rules: Value = serde_json::from_str(&rules)?;
    let job = json!({"job_name": name, "relabel_configs": rules, "static_configs": [pod("acme-mcp"), pod("beta")]});
    let config = folder.join(format!("{name}.yaml"));
    fs::write(&config, serde_yaml_ng::to_string(&json!({"scrape_configs": [job]}))?)?;
    let mut promtool = Command::new(programs.join("promtool"));
    promtool.args(["check", "service-discovery", "--timeout=2s"]).arg(&config).arg(name);
    let found: Value = serde_json::from_str(&command::output(&mut promtool)?)?;
    let found = found.as_array().into_iter().flatten();
    let scraped: Vec<_> = found.filter_map(|target| target["labels"]["__address__"].as_str()).collect();
    ensure!(scraped == ["acme-mcp:9090"], "of two pods with the labels of acme, {name} scrapes {scraped:?}");
    Ok(())
}
