//! What the chart renders for monitoring: rules and dashboards, and the names in their expressions.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::metrics;
use crate::test::charts;
use crate::tools::repository;

/// Values that turn everything on.
pub const VALUES: &[&str] = &[
    "--set",
    "monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboards.enabled=true",
];

/// The part of the chart that is about monitoring.
pub struct Monitoring {
    /// Groups of rules, as Prometheus reads them.
    pub groups: Value,
    /// The dashboards.
    pub dashboards: Vec<Value>,
}

impl Monitoring {
    /// Renders the chart.
    pub fn render() -> Result<Self> {
        let objects = charts::objects("mcp-fleet", "monitored", VALUES)?;
        let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule");
        let groups = rule.context("the chart has no PrometheusRule")?["spec"].clone();
        let maps = objects.iter().filter(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1");
        let files = maps.flat_map(|map| map["data"].as_object().into_iter().flatten());
        let parse = |(name, text): (&String, &Value)| {
            let text = text.as_str().unwrap_or_default();
            serde_json::from_str(text).with_context(|| format!("the dashboard {name} is not JSON"))
        };
        let dashboards = files.map(parse).collect::<Result<Vec<Value>>>()?;
        ensure!(dashboards.len() == 3, "the chart has {} dashboards instead of 3", dashboards.len());
        Ok(Self { groups, dashboards })
    }

    /// Returns all rules.
    pub fn rules(&self) -> impl Iterator<Item = &Value> {
        let groups = self.groups["groups"].as_array().into_iter().flatten();
        groups.flat_map(|group| group["rules"].as_array().into_iter().flatten())
    }

    /// Returns the names of all alerts.
    pub fn alerts(&self) -> Vec<&str> {
        self.rules().filter_map(|rule| rule["alert"].as_str()).collect()
    }

    /// Returns the expressions of all panels with the title of each, and every tenant selected.
    pub fn panels(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for dashboard in &self.dashboards {
            for panel in dashboard["panels"].as_array().into_iter().flatten() {
                for target in panel["targets"].as_array().into_iter().flatten() {
                    let title = format!("{} / {}", dashboard["title"], panel["title"]);
                    found.push((title, target["expr"].as_str().unwrap_or_default().replace("$tenant", ".*")));
                }
            }
        }
        found
    }
}

/// Each alert has what people need when it fires, and a section in the runbooks; each section has an alert.
pub fn check_alerts(monitoring: &Monitoring) -> Result<()> {
    for rule in monitoring.rules().filter(|rule| rule["alert"].is_string()) {
        let name = rule["alert"].as_str().unwrap_or_default();
        let notes = &rule["annotations"];
        for part in ["summary", "description", "runbook_url"] {
            ensure!(notes[part].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {part}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["critical", "warning"].contains(&severity), "{name} has the severity {severity:?}");
        let url = format!("docs/runbooks.md#{}", name.to_lowercase());
        ensure!(notes["runbook_url"] == url.as_str(), "{name} has the runbook_url {}", notes["runbook_url"]);
        let tenant = rule["expr"].as_str().is_some_and(|expr| expr.contains("by (tenant") || expr.contains("budget"));
        let named = notes["description"].as_str().is_some_and(|text| text.contains("$labels.tenant"));
        ensure!(named || !tenant, "{name} is about a tenant, and its description does not name it");
    }
    let runbooks = read("docs/runbooks.md")?;
    let sections: BTreeSet<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts: BTreeSet<&str> = monitoring.alerts().into_iter().collect();
    ensure!(sections == alerts, "only in one of docs/runbooks.md and the rules: {:?}", &sections ^ &alerts);
    Ok(())
}

/// Every metric that an expression names is exported by a component.
pub fn check_names(monitoring: &Monitoring) -> Result<()> {
    let exported = metrics::exported_by_any()?;
    let recorded: BTreeSet<&str> = monitoring.rules().filter_map(|rule| rule["record"].as_str()).collect();
    let rules = monitoring.rules().map(|rule| rule["expr"].as_str().unwrap_or_default().to_owned());
    for expression in rules.chain(monitoring.panels().into_iter().map(|(_, expression)| expression)) {
        for name in names(&expression) {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let known =
                recorded.contains(name) || exported.contains(name) || base.is_some_and(|base| exported.contains(base));
            ensure!(known, "no component exports {name}, which this uses: {expression}");
        }
    }
    Ok(())
}

/// Returns the names of our metrics and recording rules in an expression. Labels whose names begin like that are none.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("mcp_") && *word != "mcp_method_name")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository().join(path)).with_context(|| format!("failed to read {path}"))
}
