//! `package.yaml` of a server: the package that it comes from, and what its settings are for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::folder;

/// A server as its package has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    /// Name in the registry.
    pub(super) name: String,
    #[serde(with = "serde_yaml_ng::with::singleton_map")]
    pub(super) registry: Registry,
    /// What is said about it in the table.
    #[serde(default)]
    pub(super) note: Option<String>,
    /// What each setting is for, by its name in the table.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, String>,
}

/// Where a package comes from, which pins its version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Registry {
    /// npm, with the versions of `tests/servers/package-lock.json`.
    Npm {
        /// File in the package that Node.js runs.
        file: String,
    },
    /// A program of this repository on packages of npm.
    NpmProgram {
        /// File in `tests/servers`.
        program: String,
    },
    /// `PyPI`, with the versions of `packages.txt` beside it.
    Pypi {
        /// Program that the package installs.
        program: String,
    },
    /// A Go module.
    Go {
        /// Version of the module.
        version: String,
        /// Package of the program in the module.
        package: String,
    },
    /// A program of this repository on packages of Maven.
    Maven {
        /// Folder in `tests/servers` with `pom.xml`.
        folder: String,
    },
}

/// Reads what is known about a server.
pub(super) fn read(name: &str) -> Result<Package> {
    let path = folder().join(name).join("package.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))
}

impl Package {
    /// Returns the version that is pinned.
    pub(super) fn version(&self, name: &str) -> Result<String> {
        let version = match &self.registry {
            Registry::Npm { .. } | Registry::NpmProgram { .. } => {
                let manifest: serde_json::Value = serde_json::from_str(&read_text(&folder().join("package.json"))?)?;
                manifest["dependencies"][&self.name].as_str().map(str::to_owned)
            }
            Registry::Pypi { .. } => {
                let pins = read_text(&pins(name))?;
                let pinned = pins.lines().filter_map(|line| line.split_once("=="));
                pinned.filter(|(package, _)| *package == self.name).map(|(_, version)| version.to_owned()).next()
            }
            Registry::Go { version, .. } => Some(version.clone()),
            Registry::Maven { folder } => {
                let project = read_text(&super::folder().join(folder).join("pom.xml"))?;
                let artifact = self.name.rsplit(':').next().unwrap_or_default();
                let rest = project.split_once(&format!("<artifactId>{artifact}</artifactId>"));
                let version = rest.and_then(|(_, rest)| rest.split_once("<version>")?.1.split_once("</version>"));
                version.map(|(version, _)| version.to_owned())
            }
        };
        version.with_context(|| format!("the version of {} is not pinned", self.name))
    }
}

/// Returns the file with the pins of the Python packages of a server.
pub(super) fn pins(name: &str) -> PathBuf {
    folder().join(name).join("packages.txt")
}

/// Reads a file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}
