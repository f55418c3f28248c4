//! buildah, as it is always called.

use std::process::Command;

use anyhow::Result;

use crate::tools::cache;

/// With its own storage, so that the machine's images are left alone.
pub fn buildah() -> Result<Command> {
    let storage = cache::root()?.join("buildah");
    let mut buildah = Command::new("buildah");
    buildah.arg("--root").arg(storage.join("storage")).arg("--runroot").arg(storage.join("run"));
    Ok(buildah)
}
