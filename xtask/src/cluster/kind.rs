//! The cluster in docker, made by kind. It brings its own network, DNS, volumes and policy enforcement.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::Layout;
use crate::tools::{command, go, progress};

/// Makes the cluster unless kind has one of that name, and writes its kubeconfig.
pub fn up(layout: &Layout) -> Result<()> {
    std::fs::create_dir_all(&layout.state)?;
    if !exists(layout)? {
        progress::step(format!("making kind cluster {}", layout.name), "1 min", || {
            command::run(
                kind()?
                    .args(["create", "cluster", "--wait", "120s", "--name", &layout.name, "--kubeconfig"])
                    .arg(layout.kubeconfig()),
            )
        })?;
    }
    command::run(
        kind()?.args(["export", "kubeconfig", "--name", &layout.name, "--kubeconfig"]).arg(layout.kubeconfig()),
    )
}

/// Removes the cluster; that there is none is fine.
pub fn down(layout: &Layout) -> Result<()> {
    command::run(kind()?.args(["delete", "cluster", "--name", &layout.name]))
}

/// Loads an image archive into the cluster's nodes.
pub fn import(layout: &Layout, archive: &Path) -> Result<()> {
    command::run(kind()?.args(["load", "image-archive", "--name", &layout.name]).arg(archive))
        .with_context(|| format!("failed to load {}", archive.display()))
}

/// Restarts a program of the control plane by killing its container's process; kubelet starts it again.
pub fn restart(layout: &Layout, unit: &str) -> Result<()> {
    let node = format!("{}-control-plane", layout.name);
    command::run(Command::new("docker").args(["exec", &node, "pkill", "-KILL", "-x", unit]))
}

/// Whether kind has a cluster of this name.
pub fn exists(layout: &Layout) -> Result<bool> {
    Ok(command::output(kind()?.args(["get", "clusters"]))?.lines().any(|line| line == layout.name))
}

fn kind() -> Result<Command> {
    Ok(Command::new(go::kind()?))
}
