//! The subcommand `cargo xtask image`.

use anyhow::{Result, bail};
use clap::Args;

use super::{Builder, Image, build, catalogue};

/// `cargo xtask image [NAME…]`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Names of the images to build; all images if none is given.
    names: Vec<String>,
    /// The program that builds them; by default docker where its engine answers, and buildah elsewhere.
    #[arg(long, value_enum)]
    with: Option<Builder>,
}

/// Builds the images and prints the reference and the archive of each.
pub fn run(arguments: &Arguments) -> Result<()> {
    let builder = arguments.with.unwrap_or_else(Builder::of_this_machine);
    for image in chosen(&arguments.names)? {
        println!("{}\t{}", image.reference, build(image, builder)?.display());
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Image>> {
    if names.is_empty() {
        return Ok(catalogue::ALL.to_vec());
    }
    names.iter().map(|name| find(name)).collect()
}

fn find(name: &str) -> Result<&'static Image> {
    let all = || catalogue::ALL.iter().chain(catalogue::DOCKER_ONLY).chain(catalogue::QUICK);
    if let Some(image) = all().find(|image| image.name == name) {
        return Ok(image);
    }
    let known: Vec<&str> = all().map(|image| image.name).collect();
    bail!("there is no image named {name}; the images are: {}", known.join(" "))
}
