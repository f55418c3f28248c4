//! Release builds of the product's binaries, as its images contain them: static, optimised, stripped.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{command, progress, repository};

/// Builds the binary of a package, which has the name of the package, for release. Returns its path.
pub fn static_binary(package: &str) -> Result<PathBuf> {
    let architecture = std::env::consts::ARCH;
    // With an explicit target, its flags do not apply to procedural macros, which cannot be static.
    let target = format!("{architecture}-unknown-linux-gnu");
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let repository = repository();
    progress::step(format!("building {package} for release"), "3 min the first time", || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&repository).args(["build", "--release", "--target", &target, "--package", package]);
        cargo.env(flags, "-Ctarget-feature=+crt-static");
        command::run(&mut cargo)
    })?;
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    Ok(folder.join(target).join("release").join(package))
}
