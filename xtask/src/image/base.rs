//! A Debian base image for the examples' images. Without docker there is no registry to pull `debian:bookworm-slim`
//! from, so this module makes an equivalent one from the Debian archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::buildah::buildah;
use crate::tools::cache::{self, Key};
use crate::tools::{command, debian, progress};

/// Reference of the base image. Change its tag whenever this module changes the image; every image on it is then
/// rebuilt.
pub const REFERENCE: &str = "mcp-fleet.local/debian:bookworm-3";

/// The default base image of the Containerfiles.
const REGISTRY_REFERENCE: &str = "docker.io/library/debian:bookworm-slim";

/// File name of the archive of a base image.
const ARCHIVE: &str = "debian.tar";

/// apt configuration that leaves no downloads and caches in layers, as in registry images.
const APT_KEEP_NOTHING: &str =
    r#"APT::Keep-Downloaded-Packages "false";\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n"#;

/// CA bundle of this machine. Behind a proxy it includes the CA of the proxy.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Returns buildah arguments that make `FROM ${BASE}` work in a Containerfile. Creates the base image if it is missing.
pub fn arguments() -> Result<Vec<String>> {
    // An old base is fine, because the images install current packages from the Debian archive on top of it.
    if command::run(buildah()?.args(["inspect", "--type=image", REFERENCE])).is_err() {
        progress::step("building a Debian base image", "25 s", create)?;
    }
    Ok(vec![
        format!("--build-arg=BASE={REFERENCE}"),
        // Build steps download with the CA bundle of this machine. A mount leaves nothing in the image.
        format!("--volume={CERTIFICATES}:{CERTIFICATES}:ro"),
        // Images on the same base share their first layers.
        "--layers=true".to_owned(),
    ])
}

/// Gives a docker engine that cannot reach a registry the image that Containerfiles start from by default. `docker` returns
/// a docker command for that engine. The image trusts the certificates that this machine trusts, because a build cannot
/// mount them.
pub fn import_into_docker(docker: impl Fn() -> Command) -> Result<()> {
    debian::require(debian::IMAGES)?;
    let key = Key::default().text(REFERENCE).path(Path::new(CERTIFICATES))?.finish();
    let folder = cache::folder("base", "debian-docker", &key, |folder| {
        progress::step("building a Debian base image for docker", "25 s", || {
            root(folder, &[&format!("--customize-hook=copy-in {CERTIFICATES} /etc/ssl/certs")]).map(drop)
        })
    })?;
    command::run(docker().arg("import").arg(folder.join(ARCHIVE)).arg(REGISTRY_REFERENCE))
}

fn create() -> Result<()> {
    let folder = cache::root()?.join("base-buildah");
    cache::remove(&folder)?;
    fs::create_dir_all(&folder)?;
    let archive = root(&folder, &[])?;
    let container = command::output(buildah()?.args(["from", "scratch"]))?;
    let container = container.trim();
    command::run(buildah()?.args(["add", "--quiet", container]).arg(&archive))?;
    command::run(buildah()?.args(["commit", "--quiet", "--rm", container, REFERENCE]))?;
    cache::remove(&folder)
}

/// Makes a small Debian as a tar archive in `folder`. Returns the archive.
fn root(folder: &Path, options: &[&str]) -> Result<PathBuf> {
    let archive = folder.join(ARCHIVE);
    let mut debian = Command::new("mmdebstrap");
    // The slim images of registries leave out the same folders.
    for path in ["doc", "man", "info", "locale"] {
        debian.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    debian.arg(format!("--customize-hook=printf '{APT_KEEP_NOTHING}' > $1/etc/apt/apt.conf.d/90keep-nothing"));
    debian.arg("--customize-hook=rm -f $1/var/cache/apt/*.bin").args(options);
    command::run(debian.args(["--variant=minbase", "--include=ca-certificates", "bookworm"]).arg(&archive))?;
    Ok(archive)
}
