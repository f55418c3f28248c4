//! Promtool: the rules are valid, and in tests/monitoring each alert fires and is resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::chart::Monitoring;
use crate::test::on_host::show;
use crate::tools::repository;

/// Name under which the tests refer to the rules.
const RULES: &str = "rules.yaml";

/// Checks the rules, and runs their tests.
pub fn run(monitoring: &Monitoring, programs: &Path, folder: &Path) -> Result<()> {
    let promtool = programs.join("promtool");
    let complete = folder.join("complete.yaml");
    fs::write(&complete, serde_yaml_ng::to_string(&monitoring.groups)?)?;
    show(Command::new(&promtool).args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(&complete))?;

    fs::write(folder.join(RULES), serde_yaml_ng::to_string(&only_summaries(&monitoring.groups))?)?;
    let mut files = Vec::new();
    let mut outcomes: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for entry in fs::read_dir(repository().join("tests/monitoring"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().map(PathBuf::from).context("a test has no name")?;
            let text = fs::read_to_string(&path)?;
            fs::write(folder.join(&name), &text)?;
            collect_outcomes(&serde_yaml_ng::from_str(&text)?, &mut outcomes);
            files.push(name);
        }
    }
    files.sort();
    for alert in monitoring.alerts() {
        let seen = outcomes.get(alert).map_or(0, BTreeSet::len);
        ensure!(seen == 2, "no test in tests/monitoring shows that {alert} fires and that it is resolved");
    }
    show(Command::new(&promtool).args(["test", "rules"]).args(&files).current_dir(folder))
}

/// Returns the rules without descriptions and addresses, which the tests would only repeat.
fn only_summaries(groups: &Value) -> Value {
    let mut groups = groups.clone();
    for group in groups["groups"].as_array_mut().into_iter().flatten() {
        for rule in group["rules"].as_array_mut().into_iter().flatten() {
            if let Some(notes) = rule["annotations"].as_object_mut() {
                notes.retain(|name, _| name == "summary");
            }
        }
    }
    groups
}

/// Notes for each alert whether tests expect it to fire, and not to fire after that.
fn collect_outcomes(file: &Value, outcomes: &mut BTreeMap<String, BTreeSet<bool>>) {
    for test in file["tests"].as_array().into_iter().flatten() {
        let mut seen = BTreeSet::new();
        for check in test["alert_rule_test"].as_array().into_iter().flatten() {
            let name = check["alertname"].as_str().unwrap_or_default();
            let fires = check["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
            if fires {
                seen.insert(name);
            }
            if fires || seen.contains(name) {
                outcomes.entry(name.to_owned()).or_default().insert(fires);
            }
        }
    }
}
