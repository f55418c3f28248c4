//! The subcommand `cargo xtask image`.

use anyhow::{Result, bail};
use clap::Args;

use super::{Image, build, catalogue};

/// `cargo xtask image [NAME…]`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Which images; all of them when none is named.
    names: Vec<String>,
}

/// Builds the images and prints their references and archives.
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
    bail!("there is no image {name}; there are: {}", known.join(" "))
}
