//! Prometheus and promtool, from Debian's package. It is unpacked into the cache, not installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::cache::{self, Key};
use super::{command, progress};

const PACKAGE: &str = "prometheus";

/// Returns the folder of the programs `prometheus` and `promtool`.
pub fn folder() -> Result<PathBuf> {
    for folder in ["/usr/bin", "/usr/local/bin"] {
        if ["prometheus", "promtool"].iter().all(|program| PathBuf::from(folder).join(program).is_file()) {
            return Ok(PathBuf::from(folder));
        }
    }
    let key = Key::default().text(PACKAGE).text("1").finish();
    let folder = cache::folder("tools", PACKAGE, &key, |folder| {
        if !command::on_path("apt-get") || !command::on_path("dpkg-deb") {
            bail!("prometheus and promtool are missing. Install both (in Debian: {PACKAGE}) and try again");
        }
        progress::step("downloading Debian's package prometheus (19 MB) and unpacking it", "10 s", || {
            let download = || command::run(Command::new("apt-get").args(["download", PACKAGE]).current_dir(folder));
            // The lists of packages may be missing, or older than the package.
            download().or_else(|_| {
                command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
                download()
            })?;
            for entry in fs::read_dir(folder)? {
                let archive = entry?.path();
                command::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder))?;
                fs::remove_file(archive)?;
            }
            Ok(())
        })
    })?;
    Ok(folder.join("usr/bin"))
}
