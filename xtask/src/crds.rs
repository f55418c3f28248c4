//! `cargo xtask crds [--check]`: writes the API's YAML from the Rust types, for people and for the chart.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use mcp_fleet_crds::admission;
use serde::Serialize;

use crate::tools::repository;

/// `cargo xtask crds …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write nothing; fail if what is committed is not what would be written.
    #[arg(long)]
    check: bool,
}

/// Where the same files go: to be read and applied with kubectl, and to be installed with helm.
const FOLDERS: [&str; 2] = ["crds/yaml", "charts/mcp-fleet-crds/templates"];

/// Writes or compares the files.
pub fn run(arguments: &Arguments) -> Result<()> {
    let files = files()?;
    let mut different = Vec::new();
    for folder in FOLDERS {
        let path = repository().join(folder);
        if !arguments.check {
            fs::create_dir_all(&path).with_context(|| format!("failed to create {folder}"))?;
        }
        for (name, content) in &files {
            let file = path.join(name);
            if fs::read_to_string(&file).is_ok_and(|existing| existing == *content) {
                continue;
            }
            different.push(format!("{folder}/{name}"));
            if !arguments.check {
                fs::write(&file, content).with_context(|| format!("failed to write {folder}/{name}"))?;
            }
        }
        for stale in stale(&path, &files)? {
            different.push(format!("{} (to be deleted)", stale.display()));
            if !arguments.check {
                fs::remove_file(&stale).with_context(|| format!("failed to delete {}", stale.display()))?;
            }
        }
    }
    if arguments.check && !different.is_empty() {
        bail!("not what `cargo xtask crds` writes; run it and commit:\n  {}", different.join("\n  "));
    }
    for file in different {
        println!("wrote {file}");
    }
    Ok(())
}

/// File names and contents.
fn files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for crd in mcp_fleet_crds::all() {
        files.insert(format!("{}.yaml", crd.spec.names.plural), document(&[yaml(&crd)?]));
    }
    let policy = document(&[yaml(&admission::policy())?, yaml(&admission::binding())?]);
    files.insert("nested-arguments.yaml".to_owned(), policy);
    Ok(files)
}

fn yaml(object: &impl Serialize) -> Result<String> {
    serde_yaml_ng::to_string(object).context("failed to write an object as YAML")
}

fn document(objects: &[String]) -> String {
    format!("# Written by `cargo xtask crds` from crds/src; change it there.\n{}", objects.join("---\n"))
}

/// Files that were written once, for a kind that is gone.
fn stale(folder: &PathBuf, files: &BTreeMap<String, String>) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    let mut stale = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "yaml") && !files.contains_key(&name) {
            stale.push(path);
        }
    }
    Ok(stale)
}
