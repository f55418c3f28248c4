//! `mcp-pod install PATH`: puts this executable into a volume, for images that have no `cp`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Failed at one of the steps.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step} {path}")]
pub struct InstallError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Copies the running executable to `target`, mode 0755. What is at `target` is replaced whole or not at all.
pub fn install(target: &Path) -> Result<(), InstallError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| InstallError { step, path, source }
    };
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = target.with_file_name(name);
    let own = Path::new("/proc/self/exe");
    fs::copy(own, &fresh).map_err(failed("copy the executable to", &fresh))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).map_err(failed("set the mode of", &fresh))?;
    fs::rename(&fresh, target).map_err(failed("replace", target))
}
