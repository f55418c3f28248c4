//! What was spent: by our count, in the ledger and in Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::demo::report::Step;
use crate::demo::stage::{OPERATOR, Stage, until};

/// Millionths, by tenant and principal.
type Spend = BTreeMap<(String, String), u64>;

/// On a cluster that an earlier run kept.
pub const BEFORE: Step = Step {
    name: "spent before",
    does: "reads what the ledgers hold already",
    run: |stage| {
        stage.paid_before = in_ledger(stage)?;
        Ok(format!("{:?}", stage.paid_before))
    },
};

/// Three ways to the same figures.
pub const SPEND: Step = Step {
    name: "spend",
    does: "compares calls × price as counted here with the ledger and with Prometheus, by tenant and principal",
    run: |stage| {
        let mut counted: Spend = stage.paid_before.clone();
        for (who, (_, micros)) in &stage.paid {
            *counted.entry(who.clone()).or_default() += micros;
        }
        until(Duration::from_secs(45), "the last reports and scrapes", || {
            let (ledger, prometheus) = (in_ledger(stage)?, in_prometheus(stage)?);
            if ledger != counted || prometheus != counted {
                bail!("counted {counted:?}\nin the ledger {ledger:?}\nin Prometheus {prometheus:?}");
            }
            Ok(())
        })?;
        let lines = stage.paid.iter().map(|((tenant, principal), (calls, micros))| {
            format!("{tenant} {principal}: {calls} calls, {} USD", dollars(*micros))
        });
        Ok(format!("{QUERY}\n{}", lines.collect::<Vec<_>>().join("\n")))
    },
};

/// Both operators may show the same counter; it is one figure.
const QUERY: &str =
    "sum by (tenant, principal) (max by (tenant, principal, server, tool, currency) (mcp_fleet_spend_total))";

fn in_ledger(stage: &Stage) -> Result<Spend> {
    let mut spend = Spend::new();
    for (tenant, item) in ledger_items(stage)? {
        let principal = item["principal"].as_str().unwrap_or_default();
        let amount = item["amount"].as_u64().unwrap_or_default();
        *spend.entry((tenant, principal.to_owned())).or_default() += amount;
    }
    Ok(spend)
}

/// Calls that the ledger holds of a principal.
pub fn calls_in_ledger(stage: &Stage, principal: &str) -> Result<u64> {
    let items = ledger_items(stage)?.into_iter().filter(|(_, item)| item["principal"] == principal);
    Ok(items.map(|(_, item)| item["calls"].as_u64().unwrap_or_default()).sum())
}

/// The items of the ledgers of both tenants' spend limits, which cover every call, each with its tenant.
fn ledger_items(stage: &Stage) -> Result<Vec<(String, Value)>> {
    let ledgers = stage.kubectl_json(&["get", "mcpledgers", "-n", OPERATOR])?;
    let mut found = Vec::new();
    let empty = Vec::new();
    for ledger in ledgers["items"].as_array().unwrap_or(&empty) {
        let spec = &ledger["spec"];
        if spec["budget"]["name"] != "spendLimit" {
            continue;
        }
        let tenant = spec["tenant"]["name"].as_str().unwrap_or_default();
        // Those of open leases are in here as well.
        let items = spec["items"].as_array().unwrap_or(&empty);
        found.extend(items.iter().map(|item| (tenant.to_owned(), item.clone())));
    }
    Ok(found)
}

fn in_prometheus(stage: &Stage) -> Result<Spend> {
    let series = stage.promql(QUERY)?.into_iter().map(|(labels, value)| {
        let label = |name: &str| labels[name].as_str().unwrap_or_default().to_owned();
        ((label("tenant"), label("principal")), micros(value))
    });
    Ok(series.collect())
}

/// A metric's value, in millionths: it counts units of the currency.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the demo's sums are small")]
fn micros(value: f64) -> u64 {
    (value * 1_000_000.0).round() as u64
}

fn dollars(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
