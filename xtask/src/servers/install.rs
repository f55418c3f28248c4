//! Installs the servers into the cache, as their packages are pinned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::package::{self, Package, Registry, pins, read_text};
use super::{folder, names};
use crate::tools::cache::{self, Key};
use crate::tools::npm::{self, Packages};
use crate::tools::{command, go, java, python};

/// Installs all servers, and tells the tests about them: the words of a command, one a line, and the folders that it reads.
pub fn all(tests: &mut Command) -> Result<()> {
    let schemas = read_text(&folder().join("jsonschema.txt"))?;
    tests.env("MCP_JSONSCHEMA", python::packages("jsonschema", &schemas.lines().collect::<Vec<_>>())?);
    for name in names()? {
        let (command, folders) = install(&name, &package::read(&name)?)?;
        let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let variable = name.to_uppercase().replace('-', "_");
        tests.env(format!("MCP_SERVER_{variable}"), command.join("\n"));
        tests.env(format!("MCP_FOLDERS_{variable}"), folders.join("\n"));
    }
    Ok(())
}

/// Installs a server. Returns its command and the folders with everything that it needs.
fn install(name: &str, package: &Package) -> Result<(Vec<String>, Vec<PathBuf>)> {
    Ok(match &package.registry {
        Registry::Npm { file } => {
            let folder = npm_packages()?;
            let file = folder.join("node_modules").join(&package.name).join(file);
            (vec![node()?, file.display().to_string()], vec![folder])
        }
        Registry::NpmProgram { program } => {
            let packages = npm_packages()?;
            let source = folder().join(program);
            let key = Key::default().text(&packages.to_string_lossy()).path(&source)?.finish();
            // Node.js looks for packages in the folder of the program.
            let folder = cache::folder("servers", program, &key, |folder| {
                std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules"))?;
                fs::copy(&source, folder.join(program)).with_context(|| format!("failed to copy {program}"))?;
                Ok(())
            })?;
            (vec![node()?, folder.join(program).display().to_string()], vec![folder, packages])
        }
        Registry::Pypi { program } => {
            let pins = read_text(&pins(name))?;
            let folder = python::packages(&format!("server-{name}"), &pins.lines().collect::<Vec<_>>())?;
            let path = format!("PYTHONPATH={}", folder.display());
            let program = folder.join("bin").join(program).display().to_string();
            (["/usr/bin/env", &path, "/usr/bin/python3", &program].map(str::to_owned).into(), vec![folder])
        }
        Registry::Go { version, package: program } => {
            let program = go::published(name, &format!("{}/{program}", package.name), version)?;
            (vec![program.display().to_string()], vec![program])
        }
        Registry::Maven { folder } => java_program(&super::folder().join(folder))?,
    })
}

/// Installs all packages of npm together. Returns the folder with `node_modules`.
fn npm_packages() -> Result<PathBuf> {
    let packages = Packages { source: &folder(), programs: &[], cached: ("servers", "node"), of: "the servers" };
    npm::install(packages, npm::npm)
}

/// Returns the program `node`, without links: a server may read the system's folders and no others.
fn node() -> Result<String> {
    let found = command::output(Command::new("node").args(["--print", "process.execPath"]))?;
    Ok(found.trim().to_owned())
}

/// Builds a program in Java. Returns its command, and the folders that it reads: on Debian, the settings of the JDK are in `/etc`.
fn java_program(source: &Path) -> Result<(Vec<String>, Vec<PathBuf>)> {
    let folder = java::build(source, "servers", "server.folder", "the Java server")?;
    let settings = fs::read_dir("/etc")?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let settings =
        settings.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("java-")));
    let command = ["/usr/bin/java", "-cp", &java::class_path(&folder), "Server"].map(str::to_owned).into();
    Ok((command, settings.chain([folder]).collect()))
}
