//! Images of an earlier commit, with which this version has to work together.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Builder, Image, catalogue};
use crate::tools::cache::{self, Key};
use crate::tools::{command, progress, repository, rust};

/// The commit that this version is tested with: operators, gateways and shims of both work together. Move it forward with
/// each release.
pub const COMMIT: &str = "e24fd04ef85af027eb2e8c09ae714712d35cb35d";

/// The product's images at that commit.
const IMAGES: [Image; 2] = [
    Image { reference: "mcp-fleet.local/mcp-pod:earlier", ..catalogue::MCP_POD },
    Image { reference: "mcp-fleet.local/operator:earlier", ..catalogue::OPERATOR },
];

/// What was built from the commit.
#[derive(Debug)]
pub struct Earlier {
    /// The files of the commit.
    pub source: PathBuf,
    /// Archives of the images, whose tag is `earlier`.
    pub archives: Vec<PathBuf>,
}

/// Builds the images of [`COMMIT`], unless they are cached.
pub fn build(builder: Builder) -> Result<Earlier> {
    let key = Key::default().text(COMMIT).finish();
    let folder = cache::folder("earlier", "commit", &key, |folder| {
        let source = folder.join("source");
        extract(&source)?;
        let binaries = rust::static_binaries_in(
            &source,
            &folder.join("target"),
            &["mcp-pod", "mcp-fleet-operator"],
            rust::Profile::Release,
        )?;
        for (image, binary) in IMAGES.iter().zip(&binaries) {
            progress::step(format!("building image {}", image.reference), image.usually, || {
                let context = folder.join("context");
                std::fs::create_dir(&context)?;
                std::fs::copy(binary, context.join(binary.file_name().context("a binary has no name")?))?;
                builder.build(
                    image,
                    &source.join(image.recipe),
                    &context,
                    &folder.join(format!("{}.tar", image.name)),
                )?;
                cache::remove(&context)
            })?;
        }
        cache::remove(&folder.join("target"))
    })?;
    let archives = IMAGES.iter().map(|image| folder.join(format!("{}.tar", image.name))).collect();
    Ok(Earlier { source: folder.join("source"), archives })
}

/// Extracts the files of the commit from the history of this repository.
fn extract(folder: &std::path::Path) -> Result<()> {
    let git = || {
        let mut git = Command::new("git");
        git.arg("-C").arg(repository());
        git
    };
    let exists = git().args(["cat-file", "-e", &format!("{COMMIT}^{{commit}}")]).stderr(Stdio::null()).status();
    if !exists.context("failed to run git")?.success() {
        bail!(
            "the commit {COMMIT} is not in this clone. If the clone is shallow, run `git fetch --unshallow` or \
             `git fetch --depth 1 origin {COMMIT}`"
        );
    }
    std::fs::create_dir_all(folder)?;
    let archive = folder.with_extension("tar");
    command::run(git().args(["archive", "--output"]).arg(&archive).arg(COMMIT))?;
    command::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder))?;
    Ok(std::fs::remove_file(archive)?)
}
