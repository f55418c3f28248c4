//! Builds an archive from a Containerfile, with docker where it runs and with buildah elsewhere.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::buildah::buildah;
use super::{Image, base};
use crate::tools::{command, debian};

/// Builds `image` from the Containerfile `recipe` with the files in `context`, and writes it to `archive`.
pub fn build(image: &Image, recipe: &Path, context: &Path, archive: &Path) -> Result<()> {
    if docker_runs() {
        with_docker(image, recipe, context, archive)
    } else {
        with_buildah(image, recipe, context, archive)
    }
}

/// Returns whether a docker engine answers.
pub fn docker_runs() -> bool {
    command::on_path("docker") && command::run(Command::new("docker").arg("info")).is_ok()
}

fn with_docker(image: &Image, recipe: &Path, context: &Path, archive: &Path) -> Result<()> {
    let mut build = Command::new("docker");
    build.args(["build", "--quiet", "--tag", image.reference, "--file"]).arg(recipe);
    if let Some(target) = image.target {
        build.args(["--target", target]);
    }
    command::run(build.arg(context))?;
    command::run(Command::new("docker").args(["save", "--output"]).arg(archive).arg(image.reference))
}

fn with_buildah(image: &Image, recipe: &Path, context: &Path, archive: &Path) -> Result<()> {
    debian::require(debian::IMAGES)?;
    let mut build = buildah()?;
    // chroot isolation needs neither cgroups nor a separate network.
    build.args(["build", "--isolation=chroot", "--tag", image.reference, "--file"]).arg(recipe);
    if let Some(target) = image.target {
        build.args(["--target", target]);
    }
    if image.on_debian {
        build.args(base::arguments()?);
    }
    command::run(build.arg(context))?;
    let destination = format!("docker-archive:{}:{}", archive.display(), image.reference);
    command::run(buildah()?.args(["push", "--quiet", image.reference, &destination]))?;
    command::run(buildah()?.args(["rmi", "--force", image.reference]))
}
