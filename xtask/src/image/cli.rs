//! The subcommand `cargo xtask image`.

use anyhow::{Result, bail};
use clap::Args;

use super::{Image, build, catalogue};

/// `cargo xtask image [NAME…]`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Names of the images to build; all images if none is given.
    names: Vec<String>,
}

/// Builds the images and prints the reference and the archive of each.
pub fn run(arguments: &Arguments) -> Result<()> {
    for image in chosen(&arguments.names)? {
        println!("{}\t{}", image.reference, build(image)?.display());
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
    if let Some(image) = catalogue::ALL.iter().find(|image| image.name == name) {
        return Ok(image);
    }
    let known: Vec<&str> = catalogue::ALL.iter().map(|image| image.name).collect();
    bail!("there is no image named {name}; the images are: {}", known.join(" "))
}
