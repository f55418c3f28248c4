//! The events of `mcp-fleet audit export --format ocsf`, against the published schema, which a Python package contains.

use std::fs::{self, File};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::on_host::{cargo, show};
use crate::tools::{python, repository};

/// The packages: the schemas, and a validator with what it needs. The first one determines which versions of OCSF can be
/// checked.
const PACKAGES: [&str; 7] = [
    "ocsf-json-schema==1.2.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "attrs==26.1.0",
    "typing-extensions==4.16.0",
];
/// Version, class and profiles of the events.
const SCHEMA: [&str; 4] = ["1.6.0", "api_activity", "security_control", "trace"];

/// Exports sample lines with every field and decision, and validates the events.
pub fn run() -> Result<()> {
    let folder = repository().join("target/ocsf");
    fs::create_dir_all(&folder)?;
    let events = folder.join("events.jsonl");
    let sample = repository().join("cli/src/audit/export/sample.jsonl");
    let mut export = cargo(&["run", "--quiet", "--package", "mcp-fleet", "--", "audit", "export", "--format", "ocsf"]);
    let created = File::create(&events).with_context(|| format!("failed to create {}", events.display()))?;
    show(export.arg(sample).stdout(created))?;
    let packages = python::packages("ocsf", &PACKAGES)?;
    let mut validate = Command::new("python3");
    validate.arg(repository().join("cli/tests/ocsf/validate.py")).args(SCHEMA).env("PYTHONPATH", packages);
    show(validate.stdin(File::open(&events)?))
}
