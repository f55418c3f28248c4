//! Monitoring: the rules and dashboards of the chart. Each alert has to fire and to be resolved in a test of promtool, and
//! each expression has to return data from a real Prometheus.

mod chart;
mod metrics;
mod prometheus;
mod targets;
mod unit;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};

use self::chart::Monitoring;
use crate::tools::{cache, prometheus as programs};

/// Checks the rules and the dashboards of the chart.
pub fn run() -> Result<()> {
    let monitoring = Monitoring::render()?;
    chart::check_alerts(&monitoring)?;
    chart::check_names(&monitoring)?;
    metrics::check_documentation()?;
    metrics::check_fixtures()?;
    let programs = programs::folder()?;
    let folder = cache::root()?.join("monitoring");
    cache::remove(&folder)?;
    fs::create_dir_all(&folder)?;
    targets::check(&programs, &folder)?;
    unit::run(&monitoring, &programs, &folder)?;
    let failures = prometheus::run(&monitoring, &programs, &folder)?;
    ensure!(failures.is_empty(), "{} expressions failed:\n{}", failures.len(), failures.join("\n"));
    let names: BTreeSet<_> = monitoring.alerts().into_iter().collect();
    println!(
        "{} alerts, {} rules, {} panel queries",
        names.len(),
        monitoring.rules().count(),
        monitoring.panels().len()
    );
    cache::remove(&folder)
}
