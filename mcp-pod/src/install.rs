//! `mcp-pod install PATH`: copies this executable into a volume, for images without `cp`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// One step of the installation failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step} {path}")]
pub struct CopyError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Copies the running executable to `target`, with mode 0755. A file at `target` is replaced atomically.
pub fn install(target: &Path) -> Result<(), CopyError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| CopyError { step, path, source }
    };
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let copy = target.with_file_name(name);
    let executable = Path::new("/proc/self/exe");
    fs::copy(executable, &copy).map_err(failed("copy the executable to", &copy))?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).map_err(failed("set the mode of", &copy))?;
    fs::rename(&copy, target).map_err(failed("replace", target))
}
