//! Release builds of the product's binaries, as its images contain them: static, optimised, stripped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{command, progress, repository};

/// Builds the binary of a package, which has the name of the package, for release. Returns its path.
pub fn static_binary(package: &str) -> Result<PathBuf> {
    let repository = repository();
    let binaries = static_binaries_in(&repository, &repository.join("target"), &[package])?;
    binaries.into_iter().next().context("cargo built nothing")
}

/// Builds the binaries of packages in a folder with the sources of this workspace, also of another commit. Returns their
/// paths.
pub fn static_binaries_in(source: &Path, target_folder: &Path, packages: &[&str]) -> Result<Vec<PathBuf>> {
    let architecture = std::env::consts::ARCH;
    // With an explicit target, its flags do not apply to procedural macros, which cannot be static.
    let target = format!("{architecture}-unknown-linux-gnu");
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    progress::step(format!("building {} for release", packages.join(" and ")), "3 min the first time", || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(source).args(["build", "--release", "--target", &target]);
        cargo.arg("--target-dir").arg(target_folder);
        cargo.args(packages.iter().flat_map(|package| ["--package", package]));
        cargo.env(flags, "-Ctarget-feature=+crt-static");
        command::run(&mut cargo)
    })?;
    let release = target_folder.join(target).join("release");
    Ok(packages.iter().map(|package| release.join(package)).collect())
}
