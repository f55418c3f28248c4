//! Tools that the tasks share: cached builds of programs, Debian packages, running commands, and progress lines.
//!
//! Nothing here depends on `cluster` or `image`, which are built on these modules.

pub mod cache;
pub mod command;
pub mod debian;
pub mod go;
pub mod java;
pub mod npm;
pub mod progress;
pub mod prometheus;
pub mod python;
pub mod rust;

use std::path::PathBuf;

/// Returns the root folder of the repository.
pub fn repository() -> PathBuf {
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().map_or_else(|| crate_folder.clone(), PathBuf::from)
}
