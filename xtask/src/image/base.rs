//! The Debian base of the examples' images where docker is missing, and with it a registry's `debian:bookworm-slim`.

use std::process::Command;

use anyhow::Result;

use super::buildah::buildah;
use crate::tools::{cache, command, progress};

/// The base. Its tag is to change when what is made here does, and changes every image that starts from it.
pub const REFERENCE: &str = "mcp-fleet.local/debian:bookworm-3";

/// What keeps apt from leaving downloads and caches in layers, as registries' images have it.
const KEEP_NOTHING: &str =
    r#"APT::Keep-Downloaded-Packages "false";\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n"#;

/// The bundle of certificates that the machine trusts: behind a proxy, the proxy's as well.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Arguments for buildah that let a Containerfile start `FROM ${BASE}`; makes the base if it is not there yet.
pub fn arguments() -> Result<Vec<String>> {
    // A Debian stays good for a while: what is installed on top of it comes from the archive anyway.
    if command::run(buildah()?.args(["inspect", "--type=image", REFERENCE])).is_err() {
        progress::step("making a Debian base image", "25 s", make)?;
    }
    Ok(vec![
        format!("--build-arg=BASE={REFERENCE}"),
        // Steps download with what this machine trusts; the mount leaves nothing in the image.
        format!("--volume={CERTIFICATES}:{CERTIFICATES}:ro"),
        // Images of one base repeat their first steps.
        "--layers=true".to_owned(),
    ])
}

fn make() -> Result<()> {
    let folder = cache::root()?.join("base");
    cache::remove(&folder)?;
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join("debian.tar");
    let mut debian = Command::new("mmdebstrap");
    // The same that registries' slim images leave out.
    for path in ["doc", "man", "info", "locale"] {
        debian.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    debian.arg(format!("--customize-hook=printf '{KEEP_NOTHING}' > $1/etc/apt/apt.conf.d/90keep-nothing"));
    debian.arg("--customize-hook=rm -f $1/var/cache/apt/*.bin");
    command::run(debian.args(["--variant=minbase", "--include=ca-certificates", "bookworm"]).arg(&archive))?;
    let container = command::output(buildah()?.args(["from", "scratch"]))?;
    let container = container.trim();
    command::run(buildah()?.args(["add", "--quiet", container]).arg(&archive))?;
    command::run(buildah()?.args(["commit", "--quiet", "--rm", container, REFERENCE]))?;
    cache::remove(&folder)
}
