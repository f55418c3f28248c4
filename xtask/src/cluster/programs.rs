//! Programs of a cluster, copied to its own folder, because a later build replaces those in the cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layout::Layout;
use crate::tools::go;

/// Returns the folder of a cluster's programs, including kubectl.
pub fn folder(layout: &Layout) -> PathBuf {
    layout.path("bin")
}

/// Builds Kubernetes if it is not cached, and puts its programs into the cluster's folder.
pub fn install_kubernetes(layout: &Layout) -> Result<()> {
    let built = go::kubernetes()?;
    install(layout, &built.join(go::KUBERNETES_BINARY))?;
    for program in go::KUBERNETES_PROGRAMS {
        let link = folder(layout).join(program);
        symlink(go::KUBERNETES_BINARY, &link).with_context(|| format!("failed to link {}", link.display()))?;
    }
    Ok(())
}

/// Builds the NetworkPolicy enforcer if it is not cached, and puts it into the cluster's folder.
pub fn install_netpol(layout: &Layout) -> Result<()> {
    install(layout, &go::netpol()?)
}

fn install(layout: &Layout, program: &Path) -> Result<()> {
    let folder = folder(layout);
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let target = folder.join(program.file_name().context("the path of the program has no file name")?);
    // A hard link is enough on the same file system; otherwise copy.
    fs::hard_link(program, &target)
        .or_else(|_| fs::copy(program, &target).map(drop))
        .with_context(|| format!("failed to copy {} to {}", program.display(), target.display()))
}
