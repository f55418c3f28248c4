//! `cargo xtask image`: builds container images as archives, and rebuilds one only when its inputs change.
//!
//! docker or buildah build them, from the same Containerfiles.

mod base;
mod buildah;
mod builder;
mod catalogue;
pub mod cli;
pub mod earlier;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use self::base::import_into_docker;
pub use self::builder::{ARGUMENTS as DOCKER_BUILD_ARGUMENTS, Builder, docker_runs};
pub use self::catalogue::{COREDNS, DEMO, DEMO_RELEASED, KIND_NODE, MCP_POD, OPERATOR, PAUSE, PROBE, SERVER_TIME};
use crate::tools::cache::{self, Key};
use crate::tools::{progress, repository};

/// How to build one image.
#[derive(Debug)]
pub struct Image {
    /// Name on the command line and in the cache.
    pub name: &'static str,
    /// Image reference, as manifests use it.
    pub reference: &'static str,
    /// Path of the Containerfile, relative to the repository.
    pub recipe: &'static str,
    /// Stage of the Containerfile, if it describes several images.
    pub target: Option<&'static str>,
    /// How long a build usually takes.
    pub usually: &'static str,
    /// Builds the files that the Containerfile copies, and returns their paths. Archives of other images come from the
    /// same builder; the Containerfile copies them as `NAME.tar`.
    pub inputs: fn(Builder) -> Result<Vec<PathBuf>>,
    /// Whether the Containerfile starts from a Debian base image, which must then be provided to buildah.
    pub on_debian: bool,
}

/// Builds an image if its inputs have changed since the last build. Returns the archive, in docker format.
pub fn build(image: &Image, builder: Builder) -> Result<PathBuf> {
    let recipe = repository().join(image.recipe);
    let inputs =
        (image.inputs)(builder).with_context(|| format!("failed to build the inputs of image {}", image.name))?;
    let mut key = Key::default().text(image.reference).text(image.target.unwrap_or_default()).path(&recipe)?;
    if image.on_debian {
        key = key.text(base::REFERENCE);
    }
    let cached = cache::root()?;
    for input in &inputs {
        // The path of a cached file contains the key of its content. This saves reading a hundred megabytes.
        key = if input.starts_with(&cached) { key.text(&input.to_string_lossy()) } else { key.path(input)? };
    }
    let folder = cache::folder("images", &builder.cache_name(image), &key.finish(), |folder| {
        progress::step(format!("building image {}", image.reference), image.usually, || {
            let context = folder.join("context");
            fs::create_dir(&context)?;
            for input in &inputs {
                fs::copy(input, context.join(context_name(input)?))
                    .with_context(|| format!("failed to copy {}", input.display()))?;
            }
            builder.build(image, &recipe, &context, &folder.join("image.tar"))?;
            cache::remove(&context)
        })
    })?;
    Ok(folder.join("image.tar"))
}

/// Returns the name of an input in the build context. Archives of images all have the same file name, so they get that of
/// their image.
fn context_name(input: &Path) -> Result<OsString> {
    match identity(input) {
        Some((name, _)) => Ok(format!("{}.tar", name.trim_end_matches("-docker")).into()),
        None => Ok(input.file_name().context("the path of an input has no file name")?.to_owned()),
    }
}

/// Returns the name of the image in an archive made by [`build`], and the key of its content. `None` for other files.
pub fn identity(archive: &Path) -> Option<(&str, &str)> {
    let folder = archive.parent()?;
    let inside = folder.parent()? == cache::root().ok()?.join("images");
    if inside { folder.file_name()?.to_str()?.rsplit_once('-') } else { None }
}
