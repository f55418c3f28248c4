//! What is in an enclosure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use serde::{Deserialize, Serialize};

use crate::local::state::write_private;

/// Folders of the machine that every server may read: programs, libraries, and the little of `/etc` that they look up.
/// What does not exist is left out.
const SYSTEM: [&str; 20] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// Where this program is in an enclosure, for servers that are part of it.
pub(crate) const OWN_PROGRAM: &str = "/opt/mcp-fleet/bin/mcp-fleet";
/// Where the shim's binary is, as in a pod. The server may not read it.
pub(super) const SHIM: &str = "/mcp-fleet/bin/mcp-pod";
/// The directory for temporary data that every server has.
pub(super) const TEMPORARY: &str = "/tmp";
/// Where the shim's certificate is, as in a pod.
pub(super) const TLS: &str = "/mcp-fleet/tls";

/// A directory with files, which may be secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    pub(crate) path: PathBuf,
    /// Contents by name.
    pub(crate) named: BTreeMap<String, Vec<u8>>,
}

/// A directory for temporary data, in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) may_execute: bool,
}

/// What is in an enclosure, and what runs there.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Empty folder on which the file system is built.
    pub(crate) root: PathBuf,
    /// Folders and files that the user names.
    pub(crate) readable: Vec<PathBuf>,
    /// Folder with the shim's certificate.
    pub(crate) tls: PathBuf,
    /// The workspace: the folder on this machine, and where the server has it.
    pub(crate) workspace: Option<(PathBuf, PathBuf)>,
    /// Directories with files of their own.
    pub(crate) files: Vec<Files>,
    /// Directories for temporary data.
    pub(crate) scratch: Vec<Scratch>,
    /// Where the server starts.
    pub(crate) working_dir: Option<PathBuf>,
    /// Environment of the server.
    pub(crate) environment: Vec<(String, String)>,
    /// Arguments of the shim, without the ones that follow from the rest of the plan.
    pub(crate) shim: Vec<String>,
    /// Program of the server, and its arguments.
    pub(crate) command: Vec<String>,
    /// Whether nothing runs, to find out whether this machine can have enclosures.
    pub(crate) only_check: bool,
}

impl Plan {
    /// Writes the plan to a file, which only its owner may read: the environment of a server is nobody else's business, and
    /// everyone may read command lines.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        write_private(file, &serde_json::to_vec(self)?)
    }

    /// Reads a plan and deletes its file, which may contain secrets.
    pub(super) fn take(file: &Path) -> anyhow::Result<Self> {
        let plan = Self::read(file)?;
        std::fs::remove_file(file).with_context(|| format!("failed to delete {}", file.display()))?;
        Ok(plan)
    }

    /// Reads a plan.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Returns what the server may read, and is therefore in the enclosure.
    pub(super) fn readable(&self) -> impl Iterator<Item = &Path> {
        SYSTEM.iter().map(Path::new).chain(self.readable.iter().map(PathBuf::as_path)).filter(|path| path.exists())
    }

    /// Returns the command line of the shim.
    pub(super) fn command_line(&self) -> Vec<String> {
        let mut line = vec!["shim".to_owned(), format!("--tls-dir={TLS}")];
        line.extend(self.shim.iter().cloned());
        line.extend(self.workspace.iter().map(|(_, inside)| format!("--workspace={}", inside.display())));
        line.extend(self.files.iter().map(|files| format!("--files={}", files.path.display())));
        for Scratch { path, may_execute, .. } in &self.scratch {
            match may_execute {
                true => line.push(format!("--executable-scratch={}", path.display())),
                false if path == Path::new(TEMPORARY) => {}
                false => line.push(format!("--scratch={}", path.display())),
            }
        }
        line.extend(self.readable().map(|path| format!("--readable={}", path.display())));
        line.push(format!("--readable={OWN_PROGRAM}"));
        line.push("--".to_owned());
        line.extend(self.command.iter().cloned());
        line
    }
}

/// Returns whether a program is in a folder that every server may read.
pub(crate) fn is_in_system(path: &Path) -> bool {
    SYSTEM.iter().any(|folder| path.starts_with(folder))
}
