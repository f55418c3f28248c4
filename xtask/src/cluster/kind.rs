//! The cluster in docker, made by kind. It brings its own network, DNS, volumes and policy enforcement.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::Layout;
use crate::tools::{command, go, progress};

/// Makes the cluster unless kind has one of that name, and writes its kubeconfig.
pub fn up(layout: &Layout) -> Result<()> {
    fs::create_dir_all(&layout.state).with_context(|| format!("failed to create {}", layout.state.display()))?;
    if exists(layout)? {
        return command::run(&mut with_kubeconfig(layout, &["export", "kubeconfig"])?);
    }
    progress::step(format!("making kind cluster {}", layout.name), "1 min", || {
        command::run(with_kubeconfig(layout, &["create", "cluster"])?.arg("--wait=120s"))
    })
}

/// Removes the cluster; that there is none is fine.
pub fn down(layout: &Layout) -> Result<()> {
    command::run(&mut with_kubeconfig(layout, &["delete", "cluster"])?)
}

/// Loads an image archive into the cluster's node.
pub fn import(layout: &Layout, archive: &Path) -> Result<()> {
    command::run(kind(layout, &["load", "image-archive"])?.arg(archive))
        .with_context(|| format!("failed to load {}", archive.display()))
}

/// Kills a program of the cluster in its node; kubelet, or systemd for kubelet itself, starts it again.
pub fn restart(layout: &Layout, unit: &str) -> Result<()> {
    let node = format!("{}-control-plane", layout.name);
    // By the command line, because the kernel cuts names to fifteen letters.
    let pattern = format!("^([^ ]*/)?{unit} ");
    command::run(Command::new("docker").args(["exec", &node, "pkill", "-KILL", "-f", &pattern]))
}

/// Whether kind has a cluster of this name.
pub fn exists(layout: &Layout) -> Result<bool> {
    let clusters = command::output(Command::new(go::kind()?).args(["get", "clusters"]))?;
    Ok(clusters.lines().any(|line| line == layout.name))
}

fn kind(layout: &Layout, action: &[&str]) -> Result<Command> {
    let mut kind = Command::new(go::kind()?);
    kind.args(action).args(["--name", &layout.name]);
    Ok(kind)
}

/// kind with our kubeconfig: it would edit the user's own.
fn with_kubeconfig(layout: &Layout, action: &[&str]) -> Result<Command> {
    let mut kind = kind(layout, action)?;
    kind.arg("--kubeconfig").arg(layout.kubeconfig());
    Ok(kind)
}
