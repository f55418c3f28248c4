//! The directories that a pod mounts for the command, besides its workspace.

use std::ffi::OsString;
use std::path::PathBuf;

/// Directories that the command may use, and how. Options of the shim and of `sandbox-exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Mounts {
    /// Directories that the server may read.
    #[arg(long, value_name = "DIR")]
    pub files: Vec<PathBuf>,
    /// Directories that the server may read and write, in addition to /tmp.
    #[arg(long, value_name = "DIR")]
    pub scratch: Vec<PathBuf>,
    /// Directories in which the server may execute what it wrote. May include /tmp.
    #[arg(long, value_name = "DIR")]
    pub executable_scratch: Vec<PathBuf>,
}

impl Mounts {
    /// Returns the options that these directories are read from.
    pub(super) fn arguments(&self) -> impl Iterator<Item = OsString> {
        let named = |name: &'static str, paths: &[PathBuf]| {
            let paths = paths.to_vec();
            paths.into_iter().flat_map(move |path| [name.into(), path.into_os_string()])
        };
        named("--files", &self.files)
            .chain(named("--scratch", &self.scratch))
            .chain(named("--executable-scratch", &self.executable_scratch))
    }

    /// Returns all of the directories.
    pub(super) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().chain(&self.scratch).chain(&self.executable_scratch)
    }
}
