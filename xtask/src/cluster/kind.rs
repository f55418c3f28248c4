//! A cluster in docker, made by kind, which brings its own network, DNS, volumes and NetworkPolicy enforcement.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::Layout;
use crate::image::{self, Builder, KIND_NODE};
use crate::tools::{command, go, progress, repository};

/// Creates the cluster unless kind already has one of that name, and writes its kubeconfig. `image` is the image of the node,
/// if it is not that of kind's release.
pub fn up(layout: &Layout, image: Option<&str>) -> Result<()> {
    fs::create_dir_all(&layout.state).with_context(|| format!("failed to create {}", layout.state.display()))?;
    if exists(layout) {
        return command::run(&mut with_kubeconfig(layout, &["export", "kubeconfig"])?);
    }
    if image == Some(KIND_NODE.reference) {
        // docker may have another version of it, or none.
        let archive = image::build(&KIND_NODE, Builder::Docker)?;
        command::run(Command::new("docker").args(["load", "--quiet", "--input"]).arg(archive))?;
    }
    progress::step(format!("creating kind cluster {}", layout.name), "1 min", || {
        let mut create = with_kubeconfig(layout, &["create", "cluster"])?;
        create.arg("--wait=180s").arg("--config").arg(repository().join("tests/cluster/kind.yaml"));
        if let Some(image) = image {
            create.args(["--image", image]);
        }
        command::run(&mut create)
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
    // Match the command line, because the kernel truncates process names to 15 characters.
    let pattern = format!("^([^ ]*/)?{unit} ");
    command::run(Command::new("docker").args(["exec", &node(layout), "pkill", "-KILL", "-f", &pattern]))
}

/// Returns whether docker runs and has a node of this cluster. This asks docker and not kind, which may not be built yet.
pub fn exists(layout: &Layout) -> bool {
    command::on_path("docker")
        && command::run(Command::new("docker").args(["container", "inspect", &node(layout)])).is_ok()
}

/// Returns the name of the container of the only node.
fn node(layout: &Layout) -> String {
    format!("{}-control-plane", layout.name)
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
