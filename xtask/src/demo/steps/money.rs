//! Money spent: as the demo counted it, in the ledgers, and in Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::demo::report::Step;
use crate::demo::state::{Demo, OPERATOR, until};

/// Money spent in millionths, by tenant and principal.
type Spend = BTreeMap<(String, String), u64>;

/// Reads the charges of earlier runs on a kept cluster.
pub const SPENT_BEFORE: Step = Step {
    name: "spent before",
    action: "Read from the ledgers what earlier runs have spent on this cluster.",
    purpose: "A later step compares the money spent, and must not count earlier runs.",
    run: |demo| {
        demo.charges_before = spend_in_ledgers(demo)?;
        Ok(format!("{:?}", demo.charges_before))
    },
};

/// Compares the money spent in three places.
pub const SPEND: Step = Step {
    name: "spend",
    action: "Compare the price of all calls, as this demo counted them, with the ledgers and with Prometheus, for each \
             tenant and principal.",
    purpose: "Every call is charged exactly once: all three must show the same amounts.",
    run: |demo| {
        let mut counted: Spend = demo.charges_before.clone();
        for (who, (_, micros)) in &demo.charges {
            *counted.entry(who.clone()).or_default() += micros;
        }
        until(Duration::from_secs(45), "ledgers and Prometheus to show the last calls", || {
            let (ledger, prometheus) = (spend_in_ledgers(demo)?, spend_in_prometheus(demo)?);
            if ledger != counted || prometheus != counted {
                bail!("the amounts differ\ncounted: {counted:?}\nledgers: {ledger:?}\nPrometheus: {prometheus:?}");
            }
            Ok(())
        })?;
        let lines = demo.charges.iter().map(|((tenant, principal), (calls, micros))| {
            format!("{tenant} {principal}: {calls} calls, {} USD", dollars(*micros))
        });
        Ok(format!("PromQL: {QUERY}\n{}", lines.collect::<Vec<_>>().join("\n")))
    },
};

/// PromQL query for the money spent. Both operator replicas may export the same counter, hence `max` before `sum`.
const QUERY: &str =
    "sum by (tenant, principal) (max by (tenant, principal, server, tool, currency) (mcp_fleet_spend_total))";

fn spend_in_ledgers(demo: &Demo) -> Result<Spend> {
    let mut spend = Spend::new();
    for (tenant, item) in ledger_items(demo)? {
        let principal = item["principal"].as_str().unwrap_or_default();
        let amount = item["amount"].as_u64().unwrap_or_default();
        *spend.entry((tenant, principal.to_owned())).or_default() += amount;
    }
    Ok(spend)
}

/// Returns how many calls of a principal the ledgers contain.
pub fn calls_in_ledgers(demo: &Demo, principal: &str) -> Result<u64> {
    let items = ledger_items(demo)?.into_iter().filter(|(_, item)| item["principal"] == principal);
    Ok(items.map(|(_, item)| item["calls"].as_u64().unwrap_or_default()).sum())
}

/// Returns the items of the ledgers of both tenants' spend limits, each with its tenant. A spend limit covers every
/// call.
fn ledger_items(demo: &Demo) -> Result<Vec<(String, Value)>> {
    let ledgers = demo.kubectl_json(&["get", "mcpledgers", "-n", OPERATOR])?;
    let mut found = Vec::new();
    let empty = Vec::new();
    for ledger in ledgers["items"].as_array().unwrap_or(&empty) {
        let spec = &ledger["spec"];
        if spec["budget"]["name"] != "spendLimit" {
            continue;
        }
        let tenant = spec["tenant"]["name"].as_str().unwrap_or_default();
        // These include the items of open leases.
        let items = spec["items"].as_array().unwrap_or(&empty);
        found.extend(items.iter().map(|item| (tenant.to_owned(), item.clone())));
    }
    Ok(found)
}

fn spend_in_prometheus(demo: &Demo) -> Result<Spend> {
    let series = demo.promql(QUERY)?.into_iter().map(|(labels, value)| {
        let label = |name: &str| labels[name].as_str().unwrap_or_default().to_owned();
        ((label("tenant"), label("principal")), micros(value))
    });
    Ok(series.collect())
}

/// Converts the value of a metric, which is in units of the currency, to millionths.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the demo's sums are small")]
fn micros(value: f64) -> u64 {
    (value * 1_000_000.0).round() as u64
}

fn dollars(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
