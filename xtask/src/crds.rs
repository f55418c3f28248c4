//! `cargo xtask crds [--check]`: generates the API's YAML from the Rust types, for `kubectl apply --server-side` and for the CRD
//! chart, and the admission policies of the operator's chart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use mcp_fleet_crds::admission::{self, Admission};
use serde::Serialize;

use crate::tools::repository;

/// `cargo xtask crds …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write nothing, and fail if a committed file differs from what would be generated.
    #[arg(long)]
    check: bool,
}

/// Folders that each get the same files: one to read and apply with kubectl, one to install with helm.
const OUTPUT_FOLDERS: [&str; 2] = ["crds/yaml", "charts/mcp-fleet-crds/templates"];

/// The policies that name the operator, which are a template of its chart.
const OPERATOR_POLICIES: &str = "charts/mcp-fleet/templates/admission.yaml";

/// Writes the files, or compares them with what is committed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let files = files()?;
    let mut different = Vec::new();
    let policies = operator_policies()?;
    if !is_current(&repository().join(OPERATOR_POLICIES), &policies) {
        different.push(OPERATOR_POLICIES.to_owned());
        if !arguments.check {
            fs::write(repository().join(OPERATOR_POLICIES), policies)
                .with_context(|| format!("failed to write {OPERATOR_POLICIES}"))?;
        }
    }
    for folder in OUTPUT_FOLDERS {
        let path = repository().join(folder);
        if !arguments.check {
            fs::create_dir_all(&path).with_context(|| format!("failed to create {folder}"))?;
        }
        for (name, content) in &files {
            let file = path.join(name);
            if is_current(&file, content) {
                continue;
            }
            different.push(format!("{folder}/{name}"));
            if !arguments.check {
                fs::write(&file, content).with_context(|| format!("failed to write {folder}/{name}"))?;
            }
        }
        for stale in stale_files(&path, &files)? {
            different.push(format!(
                "{} ({})",
                stale.display(),
                if arguments.check { "to be deleted" } else { "deleted" }
            ));
            if !arguments.check {
                fs::remove_file(&stale).with_context(|| format!("failed to delete {}", stale.display()))?;
            }
        }
    }
    if arguments.check && !different.is_empty() {
        bail!(
            "these generated files are out of date; run `cargo xtask crds` and commit the result:\n  {}",
            different.join("\n  ")
        );
    }
    for file in different {
        println!("updated {file}");
    }
    Ok(())
}

/// Returns the content of every generated file by its name.
fn files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for crd in mcp_fleet_crds::all() {
        files.insert(format!("{}.yaml", crd.spec.names.plural), document(&[yaml(&crd)?]));
    }
    for (name, admission) in admission::with_crds() {
        files.insert(format!("{name}.yaml"), document(&objects(&[admission])?));
    }
    Ok(files)
}

/// Returns the policies that name the operator. Helm fills in its namespace.
fn operator_policies() -> Result<String> {
    Ok(document(&objects(&admission::with_operator("{{ .Release.Namespace }}"))?))
}

/// Returns the policies and their bindings as YAML.
fn objects(admissions: &[Admission]) -> Result<Vec<String>> {
    let mut objects = Vec::new();
    for Admission { policy, binding } in admissions {
        objects.extend([yaml(policy)?, yaml(binding)?]);
    }
    Ok(objects)
}

fn is_current(file: &Path, content: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|existing| existing == content)
}

fn yaml(object: &impl Serialize) -> Result<String> {
    serde_yaml_ng::to_string(object).context("failed to write an object as YAML")
}

fn document(objects: &[String]) -> String {
    format!("# Written by `cargo xtask crds` from crds/src; change it there.\n{}", objects.join("---\n"))
}

/// Returns the YAML files of `folder` that are no longer generated, for example those of a removed kind.
fn stale_files(folder: &PathBuf, files: &BTreeMap<String, String>) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "yaml") && !files.contains_key(&name) {
            found.push(path);
        }
    }
    Ok(found)
}
