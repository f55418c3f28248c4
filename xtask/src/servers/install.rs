//! Installs the servers into the cache, as their packages are pinned.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::package::{self, Package, Registry, pins, read_text};
use super::{folder, names};
use crate::tools::cache::{self, Key};
use crate::tools::{command, progress, python};

/// Installs all servers, and tells the tests about them: the words of a command, one a line, and the folders that it reads.
pub fn all(tests: &mut Command) -> Result<()> {
    let schemas = read_text(&folder().join("jsonschema.txt"))?;
    tests.env("MCP_JSONSCHEMA", python::packages("jsonschema", &schemas.lines().collect::<Vec<_>>())?);
    for name in names()? {
        let (command, folder) = install(&name, &package::read(&name)?)?;
        let variable = name.to_uppercase().replace('-', "_");
        tests.env(format!("MCP_SERVER_{variable}"), command.join("\n"));
        tests.env(format!("MCP_FOLDERS_{variable}"), folder);
    }
    Ok(())
}

/// Installs a server. Returns its command and the folder with everything that it needs.
fn install(name: &str, package: &Package) -> Result<(Vec<String>, PathBuf)> {
    let (command, folder) = match &package.registry {
        Registry::Npm { file } => {
            let folder = npm()?;
            let file = folder.join("node_modules").join(&package.name).join(file);
            (vec![node()?, file.display().to_string()], folder)
        }
        Registry::Pypi { program } => {
            let pins = read_text(&pins(name))?;
            let folder = python::packages(&format!("server-{name}"), &pins.lines().collect::<Vec<_>>())?;
            let path = format!("PYTHONPATH={}", folder.display());
            let program = folder.join("bin").join(program).display().to_string();
            (["/usr/bin/env", &path, "/usr/bin/python3", &program].map(str::to_owned).into(), folder)
        }
    };
    Ok((command, folder))
}

/// Installs all packages of npm together. Returns the folder with `node_modules`.
fn npm() -> Result<PathBuf> {
    let files = ["package.json", "package-lock.json"];
    let source = folder();
    let key = files.iter().try_fold(Key::default(), |key, file| key.path(&source.join(file)))?.finish();
    cache::folder("servers", "node", &key, |installed| {
        if !command::on_path("npm") {
            bail!("npm is missing. Install Node.js 20 or newer with it and try again");
        }
        for file in files {
            fs::copy(source.join(file), installed.join(file)).with_context(|| format!("failed to copy {file}"))?;
        }
        let mut install = Command::new("npm");
        install.args(["ci", "--silent", "--ignore-scripts"]).current_dir(installed);
        progress::step("installing the npm packages of the servers", "20 s", || command::run(&mut install))
    })
}

/// Returns the program `node`, without links: a server may read the system's folders and no others.
fn node() -> Result<String> {
    let found = command::output(Command::new("node").args(["--print", "process.execPath"]))?;
    Ok(found.trim().to_owned())
}
