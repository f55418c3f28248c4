//! Debian packages that the packaged node and the image builds need. Missing ones are installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

use super::{command, progress};

/// A Debian package, and a program of it that shows whether it is installed.
pub struct Package {
    /// A program on PATH, or the absolute path of a file.
    pub provides: &'static str,
    /// Name of the package.
    pub name: &'static str,
}

/// Packages that the packaged node needs.
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

/// Packages that build images where docker does not run.
pub const IMAGES: &[Package] = &[
    Package { provides: "buildah", name: "buildah" },
    Package { provides: "mmdebstrap", name: "mmdebstrap" },
    // buildah runs build steps with a container runtime.
    Package { provides: "runc", name: "runc" },
];

/// Packages of a docker engine for tests.
pub const DOCKER: &[Package] = &[
    Package { provides: "/usr/sbin/dockerd", name: "docker.io" },
    Package { provides: "iptables", name: "iptables" },
    Package { provides: "runc", name: "runc" },
    Package { provides: "ip", name: "iproute2" },
];

/// Returns whether this is the release of Debian that the packaged node is made for.
pub fn is_bookworm() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| {
        let has = |line: &str| text.lines().any(|other| other == line);
        has("ID=debian") && has("VERSION_ID=\"12\"")
    })
}

/// Installs the missing ones of `packages`, and prints their names. Needs root and apt; fails with instructions
/// otherwise.
pub fn require(packages: &[Package]) -> Result<()> {
    // apt refuses to run twice at the same time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<&Package> = packages.iter().filter(|package| !package.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !command::on_path("apt-get") {
        let programs: Vec<_> =
            missing.iter().map(|one| format!("{} (in Debian: {})", one.provides, one.name)).collect();
        bail!("these programs are missing: {}. Install them and try again", programs.join(", "));
    }
    let missing: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!("these Debian packages are missing: {list}. Run `apt-get install {list}` as root and try again");
    }
    progress::step(format!("installing missing Debian packages: {list}"), "30 s", || {
        let _no_services = NoServiceStart::new()?;
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

impl Package {
    fn is_installed(&self) -> bool {
        if self.provides.starts_with('/') { Path::new(self.provides).exists() } else { command::on_path(self.provides) }
    }
}

/// Guard that keeps packages from starting their services during installation: the node needs containerd as a program,
/// not as a system service.
struct NoServiceStart {
    created: bool,
}

/// Script that Debian packages call before they start a service. Exit code 101 forbids the start.
const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServiceStart {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            // The machine has its own policy, which stays in place.
            return Ok(Self { created: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("failed to write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { created: true })
    }
}

impl Drop for NoServiceStart {
    fn drop(&mut self) {
        if self.created {
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// Disables newly installed services where systemd runs, because they would start at the next boot.
fn disable_services(installed: &[&str]) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let units = [
        ("containerd", "containerd"),
        ("nftables", "nftables"),
        ("buildah", "buildah"),
        ("docker.io", "docker.service"),
        ("docker.io", "docker.socket"),
    ];
    for (_, unit) in units.iter().filter(|(package, _)| installed.contains(package)) {
        // This fails only if there is no such unit, and then there is nothing to disable.
        let _ = command::run(Command::new("systemctl").args(["disable", "--quiet", unit]));
    }
}
