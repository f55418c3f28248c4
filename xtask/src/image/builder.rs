//! Builds an archive from a Containerfile, with docker or with buildah.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use super::buildah::buildah;
use super::{Image, base};
use crate::tools::{command, debian};

/// Environment variable with more arguments for `docker build`, such as `--network=host` behind a proxy.
pub const ARGUMENTS: &str = "MCP_FLEET_DOCKER_BUILD";

/// The program that builds images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Builder {
    /// The docker engine.
    Docker,
    /// buildah from Debian, which needs no engine.
    Buildah,
}

impl Builder {
    /// Returns docker where its engine answers, and buildah elsewhere.
    pub fn of_this_machine() -> Self {
        if docker_runs() { Self::Docker } else { Self::Buildah }
    }

    /// Returns the name of an image in the cache. Each builder has its own, so that none uses what the other built.
    pub(super) fn cache_name(self, image: &Image) -> String {
        match self {
            Self::Docker => format!("{}-docker", image.name),
            Self::Buildah => image.name.to_owned(),
        }
    }

    /// Builds `image` from the Containerfile `recipe` with the files in `context`, and writes it to `archive`.
    pub(super) fn build(self, image: &Image, recipe: &Path, context: &Path, archive: &Path) -> Result<()> {
        match self {
            Self::Docker => with_docker(image, recipe, context, archive),
            Self::Buildah => with_buildah(image, recipe, context, archive),
        }
    }
}

/// Returns whether a docker engine answers.
pub fn docker_runs() -> bool {
    command::on_path("docker") && command::run(Command::new("docker").arg("info")).is_ok()
}

fn with_docker(image: &Image, recipe: &Path, context: &Path, archive: &Path) -> Result<()> {
    let mut build = Command::new("docker");
    // Engines before version 23 use their old builder by default, which builds all stages before the wanted one, and so
    // needs files that are not in the context.
    build.env("DOCKER_BUILDKIT", "1");
    build.args(["build", "--quiet", "--tag", image.reference, "--file"]).arg(recipe);
    if let Some(target) = image.target {
        build.args(["--target", target]);
    }
    build.args(std::env::var(ARGUMENTS).unwrap_or_default().split_whitespace());
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
