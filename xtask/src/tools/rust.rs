//! Builds of the product's binaries for its images: static and stripped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{command, progress, repository};

/// How much a build optimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As released.
    Release,
    /// Built in a fraction of the time, for the demo.
    Demo,
}

impl Profile {
    /// Returns the name of the profile, which is also that of its folder.
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Demo => "demo",
        }
    }
}

/// The packages of the product. They are always built together: each alone would get other features of the crates that
/// both depend on, which would then be built twice.
const PRODUCT: &[&str] = &["mcp-fleet-operator", "mcp-pod"];

/// Builds the binary of a package, which has the name of the package. Returns its path.
pub fn static_binary(package: &str, profile: Profile) -> Result<PathBuf> {
    let repository = repository();
    let packages = if PRODUCT.contains(&package) { PRODUCT } else { &[package] };
    let binaries = static_binaries_in(&repository, &repository.join("target"), packages, profile)?;
    binaries.into_iter().find(|binary| binary.ends_with(package)).context("cargo built nothing")
}

/// Builds the binaries of packages in a folder with the sources of this workspace, also of another commit. Returns their
/// paths.
pub fn static_binaries_in(
    source: &Path,
    target_folder: &Path,
    packages: &[&str],
    profile: Profile,
) -> Result<Vec<PathBuf>> {
    let architecture = std::env::consts::ARCH;
    // With an explicit target, its flags do not apply to procedural macros, which cannot be static.
    let target = format!("{architecture}-unknown-linux-gnu");
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let name = profile.name();
    progress::step(format!("building {} ({name})", packages.join(" and ")), "5 min the first time", || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(source).args(["build", "--profile", name, "--target", &target]);
        cargo.arg("--target-dir").arg(target_folder);
        cargo.args(packages.iter().flat_map(|package| ["--package", package]));
        cargo.env(flags, "-Ctarget-feature=+crt-static");
        command::run(&mut cargo)
    })?;
    let folder = target_folder.join(target).join(name);
    Ok(packages.iter().map(|package| folder.join(package)).collect())
}
