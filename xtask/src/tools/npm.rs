//! Packages of npm, for tests. They are installed into the cache, not into the system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cache::{self, Key};
use super::{command, progress};

/// A folder with `package.json` and `package-lock.json`, which pin packages.
#[derive(Clone, Copy, Debug)]
pub struct Packages<'a> {
    pub source: &'a Path,
    /// Programs in the folder that are installed beside their packages.
    pub programs: &'a [&'a str],
    /// Group and name in the cache.
    pub cached: (&'a str, &'a str),
    /// Whose packages they are, for the progress line.
    pub of: &'a str,
}

/// Returns the command npm of this machine.
pub fn npm() -> Result<Command> {
    if !command::on_path("npm") {
        bail!("npm is missing. Install Node.js 20 or newer with it and try again");
    }
    Ok(Command::new("npm"))
}

/// Installs packages, if they are not in the cache. Returns the folder with `node_modules` and the programs. `npm` returns the
/// command that installs them.
pub fn install(packages: Packages<'_>, npm: impl FnOnce() -> Result<Command>) -> Result<PathBuf> {
    let Packages { source, programs, cached: (group, name), of } = packages;
    let files: Vec<&str> = ["package.json", "package-lock.json"].into_iter().chain(programs.iter().copied()).collect();
    let key = files.iter().try_fold(Key::default(), |key, file| key.path(&source.join(file)))?.finish();
    cache::folder(group, name, &key, |installed| {
        let mut install = npm()?;
        for file in &files {
            fs::copy(source.join(file), installed.join(file)).with_context(|| format!("failed to copy {file}"))?;
        }
        install.args(["ci", "--silent", "--ignore-scripts"]).current_dir(installed);
        progress::step(format!("installing the npm packages of {of}"), "20 s", || command::run(&mut install))
    })
}
