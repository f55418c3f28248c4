//! A cluster in docker, made by kind, which brings its own network, DNS, volumes and NetworkPolicy enforcement.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::Layout;
use crate::tools::{command, go, progress};

/// Creates the cluster unless kind already has one of that name, and writes its kubeconfig.
pub fn up(layout: &Layout) -> Result<()> {
    fs::create_dir_all(&layout.state).with_context(|| format!("failed to create {}", layout.state.display()))?;
    if exists(layout)? {
        return command::run(&mut with_kubeconfig(layout, &["export", "kubeconfig"])?);
    }
    progress::step(format!("creating kind cluster {}", layout.name), "1 min", || {
        command::run(with_kubeconfig(layout, &["create", "cluster"])?.arg("--wait=120s"))
    })
}

/// Deletes the cluster. Does nothing if there is none.
pub fn down(layout: &Layout) -> Result<()> {
    command::run(&mut with_kubeconfig(layout, &["delete", "cluster"])?)
}

/// Loads an image archive into the cluster's node.
pub fn import(layout: &Layout, archive: &Path) -> Result<()> {
    command::run(kind(layout, &["load", "image-archive"])?.arg(archive))
        .with_context(|| format!("failed to load {}", archive.display()))
}

/// Kills a program inside the node. kubelet restarts it; systemd restarts kubelet itself.
pub fn restart(layout: &Layout, unit: &str) -> Result<()> {
    let node = format!("{}-control-plane", layout.name);
    // Match the command line, because the kernel truncates process names to 15 characters.
    let pattern = format!("^([^ ]*/)?{unit} ");
    command::run(Command::new("docker").args(["exec", &node, "pkill", "-KILL", "-f", &pattern]))
}

/// Returns whether kind has a cluster of this name.
pub fn exists(layout: &Layout) -> Result<bool> {
    let clusters = command::output(Command::new(go::kind()?).args(["get", "clusters"]))?;
    Ok(clusters.lines().any(|line| line == layout.name))
}

fn kind(layout: &Layout, action: &[&str]) -> Result<Command> {
    let mut kind = Command::new(go::kind()?);
    kind.args(action).args(["--name", &layout.name]);
    Ok(kind)
}

/// Returns a kind command that writes to the cluster's kubeconfig; by default kind edits the user's own.
fn with_kubeconfig(layout: &Layout, action: &[&str]) -> Result<Command> {
    let mut kind = kind(layout, action)?;
    kind.arg("--kubeconfig").arg(layout.kubeconfig());
    Ok(kind)
}
