//! Installs the servers into the cache, as their packages are pinned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::package::{self, Package, Registry, pins, read_text};
use super::{folder, names};
use crate::tools::cache::{self, Key};
use crate::tools::debian::{self, Package as Debian};
use crate::tools::{command, go, progress, python};

/// Packages that build and run a program in Java.
const JAVA: &[Debian] =
    &[Debian { provides: "mvn", name: "maven" }, Debian { provides: "javac", name: "openjdk-17-jdk-headless" }];

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
            let folder = npm()?;
            let file = folder.join("node_modules").join(&package.name).join(file);
            (vec![node()?, file.display().to_string()], vec![folder])
        }
        Registry::NpmProgram { program } => {
            let packages = npm()?;
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
        Registry::Maven { folder } => java(&super::folder().join(folder))?,
    })
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

/// Builds a program in Java. Returns its command, and the folders that it reads: on Debian, the settings of the JDK are in `/etc`.
fn java(source: &Path) -> Result<(Vec<String>, Vec<PathBuf>)> {
    debian::require(JAVA)?;
    let key = Key::default().path(source)?.finish();
    let folder = cache::folder("servers", "java", &key, |folder| {
        let mut build = Command::new("mvn");
        build.args(["--batch-mode", "--quiet", "--file"]).arg(source.join("pom.xml"));
        build.arg(format!("-Dserver.folder={}", folder.display())).args(["compile", "dependency:copy-dependencies"]);
        progress::step("building the Java server", "20 s", || command::run(&mut build))
    })?;
    let settings = fs::read_dir("/etc")?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let settings =
        settings.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("java-")));
    let path = format!("{0}/classes:{0}/dependency/*", folder.display());
    let command = ["/usr/bin/java", "-cp", &path, "Server"].map(str::to_owned).into();
    Ok((command, settings.chain([folder]).collect()))
}
