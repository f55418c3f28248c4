//! The buildah command, as this crate always calls it.

use std::process::Command;

use anyhow::Result;

use crate::tools::cache;

/// Returns a buildah command with its own storage, so that images of this machine are not affected.
pub fn buildah() -> Result<Command> {
    let storage = cache::root()?.join("buildah");
    let mut buildah = Command::new("buildah");
    buildah.arg("--root").arg(storage.join("storage")).arg("--runroot").arg(storage.join("run"));
    Ok(buildah)
}
