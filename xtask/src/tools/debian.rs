//! Debian packages that the packaged node and the images need, installed where they are missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{command, progress};

/// A program and the Debian package that has it.
pub struct Package {
    /// A program on the path, or the absolute path of a file.
    pub provides: &'static str,
    /// The package's name.
    pub name: &'static str,
}

/// What the packaged node runs on.
pub const NODE: &[Package] = &[
    Package { provides: "containerd", name: "containerd" },
    Package { provides: "runc", name: "runc" },
    Package { provides: "/usr/lib/cni/bridge", name: "containernetworking-plugins" },
    Package { provides: "nft", name: "nftables" },
    Package { provides: "sysctl", name: "procps" },
    Package { provides: "ip", name: "iproute2" },
    Package { provides: "nsenter", name: "util-linux" },
    Package { provides: "mount", name: "mount" },
];

/// What builds images where there is no docker.
pub const IMAGES: &[Package] = &[
    Package { provides: "buildah", name: "buildah" },
    Package { provides: "mmdebstrap", name: "mmdebstrap" },
    // buildah starts its steps through a container runtime.
    Package { provides: "runc", name: "runc" },
];

/// Installs those of `packages` that are not there, and says so.
pub fn require(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().filter(|package| !is_there(package)).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !command::on_path("apt-get") {
        bail!("missing on this machine: {list}; install them (the names are Debian's) and try again");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("missing on this machine: {list}; run `apt-get install {list}` as root and try again");
    }
    progress::step(format!("installing Debian packages: {list}"), "30 s", || {
        let _quiet = ServicesStayOff::new()?;
        command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        command::run(
            Command::new("apt-get")
                .args(["install", "--yes", "--quiet", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    })?;
    disable_services(&missing);
    Ok(())
}

fn is_there(package: &Package) -> bool {
    if package.provides.starts_with('/') {
        Path::new(package.provides).exists()
    } else {
        command::on_path(package.provides)
    }
}

/// Keeps packages from starting their services while it lives: we want containerd the program, not a daemon.
struct ServicesStayOff {
    made: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl ServicesStayOff {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            // The machine has its own policy; what it says about services holds.
            return Ok(Self { made: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("failed to write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { made: true })
    }
}

impl Drop for ServicesStayOff {
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// Where systemd runs, the freshly installed services would start at the next boot.
fn disable_services(installed: &[&str]) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    for service in ["containerd", "nftables", "buildah"].iter().filter(|service| installed.contains(service)) {
        // Failing means that there is no such unit, and nothing to disable.
        let _ = command::run(Command::new("systemctl").args(["disable", "--quiet", service]));
    }
}
