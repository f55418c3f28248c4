//! The Debian base of the examples' images, where no registry can be reached to pull one from.

use anyhow::Result;

/// Part of the key of images that start from it.
pub const VERSION: &str = "bookworm-1";

/// Arguments that let a Containerfile's `FROM ${BASE}` find the base.
pub fn arguments() -> Result<Vec<String>> {
    Ok(Vec::new())
}
