//! `cargo xtask image`: container images as archives, built once for each content.
//!
//! docker builds them where it runs, buildah elsewhere, from the same Containerfiles.

mod base;
mod buildah;
mod builder;
mod catalogue;
pub mod cli;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use self::builder::docker_runs;
pub use self::catalogue::{COREDNS, DEMO, PAUSE, PROBE};
use crate::tools::cache::{self, Key};
use crate::tools::{progress, repository};

/// How to build one image.
#[derive(Debug)]
pub struct Image {
    /// Names it on the command line and in the cache.
    pub name: &'static str,
    /// What manifests call it.
    pub reference: &'static str,
    /// The Containerfile, relative to the repository.
    pub recipe: &'static str,
    /// Which stage of the Containerfile, when it has several images.
    pub target: Option<&'static str>,
    /// How long building it usually takes.
    pub usually: &'static str,
    /// Makes the files that the Containerfile copies, and returns them.
    pub inputs: fn() -> Result<Vec<PathBuf>>,
    /// Whether it starts from a Debian base image, which buildah has to be given.
    pub on_debian: bool,
}

/// Builds an image unless its inputs are those of the last build; returns the archive (docker's format).
pub fn build(image: &Image) -> Result<PathBuf> {
    let recipe = repository().join(image.recipe);
    let inputs = (image.inputs)().with_context(|| format!("failed to make the inputs of image {}", image.name))?;
    let mut key = Key::default().text(image.reference).text(image.target.unwrap_or_default()).path(&recipe)?;
    if image.on_debian {
        key = key.text(base::REFERENCE);
    }
    let cached = cache::root()?;
    for input in &inputs {
        // What is in the cache has a key in its path, which saves reading a hundred megabytes.
        key = if input.starts_with(&cached) { key.text(&input.to_string_lossy()) } else { key.path(input)? };
    }
    let folder = cache::folder("images", image.name, &key.finish(), |folder| {
        progress::step(format!("building image {}", image.reference), image.usually, || {
            let context = folder.join("context");
            fs::create_dir(&context)?;
            for input in &inputs {
                let name = input.file_name().context("an input has a name")?;
                fs::copy(input, context.join(name)).with_context(|| format!("failed to copy {}", input.display()))?;
            }
            builder::build(image, &recipe, &context, &folder.join("image.tar"))?;
            cache::remove(&context)
        })
    })?;
    Ok(folder.join("image.tar"))
}

/// Which image an archive of [`build`] holds, and the key of its content; `None` for files of others.
pub fn identity(archive: &Path) -> Option<(&str, &str)> {
    let folder = archive.parent()?;
    let inside = folder.parent()? == cache::root().ok()?.join("images");
    if inside { folder.file_name()?.to_str()?.rsplit_once('-') } else { None }
}
