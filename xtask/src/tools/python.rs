//! Packages of PyPI, for tests and measurements. They are installed into the cache, not into the system.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::cache::{self, Key};
use super::{command, progress};

/// Returns a folder with these packages for `PYTHONPATH`. `name` names the set. Packages have exact versions; what they depend
/// on is not installed.
pub fn packages(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let key = packages.iter().fold(Key::default(), |key, package| key.text(package)).finish();
    cache::folder("python", name, &key, |folder| {
        if !command::on_path("python3") {
            bail!("python3 is missing. Install it together with pip and try again");
        }
        let mut install = Command::new("python3");
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        install.arg(folder).args(packages).env("PIP_ROOT_USER_ACTION", "ignore");
        progress::step(format!("installing Python packages: {}", packages.join(", ")), "10 s", || {
            command::run(&mut install).map(drop)
        })
    })
}
