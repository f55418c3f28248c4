//! The programs of a running cluster, in its own folder: a build made meanwhile replaces those in the cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layout::Layout;
use crate::tools::go;

/// The folder of a cluster's programs, kubectl among them.
pub fn folder(layout: &Layout) -> PathBuf {
    layout.path("bin")
}

/// Builds Kubernetes if need be and puts its programs into the cluster's folder.
pub fn install_kubernetes(layout: &Layout) -> Result<()> {
    let built = go::kubernetes()?;
    install(layout, &built.join(go::KUBERNETES_BINARY))?;
    for program in go::KUBERNETES_PROGRAMS {
        let link = folder(layout).join(program);
        symlink(go::KUBERNETES_BINARY, &link).with_context(|| format!("failed to link {}", link.display()))?;
    }
    Ok(())
}

/// Builds the `NetworkPolicy` enforcer if need be and puts it into the cluster's folder.
pub fn install_netpol(layout: &Layout) -> Result<()> {
    install(layout, &go::netpol()?)
}

fn install(layout: &Layout, program: &Path) -> Result<()> {
    let folder = folder(layout);
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let place = folder.join(program.file_name().context("a program has a name")?);
    // The same file under a second name; across file systems it takes a copy.
    fs::hard_link(program, &place)
        .or_else(|_| fs::copy(program, &place).map(drop))
        .with_context(|| format!("failed to copy {} to {}", program.display(), place.display()))
}
