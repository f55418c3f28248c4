//! What the tasks need beside cargo: programs built once and cached, Debian packages, progress lines.
//!
//! Nothing here knows what a cluster is; `cluster` and `image` are built on it.

pub mod cache;
pub mod command;
pub mod debian;
pub mod go;
pub mod progress;
pub mod rust;

use std::path::PathBuf;

/// The repository's root: every committed input is named relative to it.
pub fn repository() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}
