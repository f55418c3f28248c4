//! Alerts of the chart, in Prometheus.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use super::setup::rules;
use crate::demo::report::Step;
use crate::demo::state::{Demo, until};

/// The alert that the agent in a loop has caused.
const ALERT: &str = "McpFleetAgentLoop";
/// Time for a scrape and an evaluation of the rules, each every two seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Shows the alert about the agent in a loop.
pub const FIRING: Step = Step {
    name: "alert",
    action: "Wait until Prometheus has the chart's alert about the agent in a loop, and list all alerts that fire.",
    purpose: "A person learns about an agent in a loop without reading logs, and the alert leads to what to do.",
    run: |demo| {
        let query = format!(r#"ALERTS{{alertname="{ALERT}", alertstate="firing", principal="acme/writer"}}"#);
        let labels = until(LIMIT, "the alert", || {
            let series = demo.promql(&query)?.into_iter().next();
            series.map(|(labels, _)| labels).ok_or_else(|| anyhow!("{ALERT} does not fire"))
        })?;
        let text = |name: &str| labels[name].as_str().unwrap_or("?").to_owned();
        let (tenant, principal, server) = (text("tenant"), text("principal"), text("server"));
        Ok(format!(
            "{ALERT} fires for principal {principal} of tenant {tenant} on server {server}\nrunbook: {}\nall alerts that \
             fire: {}",
            runbook()?,
            firing(demo)?
        ))
    },
};

/// Returns the link to the runbook, as Prometheus has it in the rule.
fn runbook() -> Result<String> {
    let rules = rules()?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    let mut rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let rule = rules.find(|rule| rule["alert"] == ALERT).with_context(|| format!("the chart has no alert {ALERT}"))?;
    rule["annotations"]["runbook_url"].as_str().map(str::to_owned).context("the alert has no runbook")
}

/// Returns the names of all alerts that fire.
fn firing(demo: &Demo) -> Result<String> {
    let series = demo.promql(r#"count by (alertname) (ALERTS{alertstate="firing"})"#)?;
    let names = series.iter().filter_map(|(labels, _)| labels.get("alertname").and_then(Value::as_str));
    Ok(names.collect::<Vec<_>>().join(", "))
}
