//! The folder in which a fleet keeps what a cluster would keep: keys, ledgers, workspaces, audit lines and logs.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use mcp_fleet_core::private_files::{self, create_folder};
use rustix::fs::{FlockOperation, flock};

/// Format of the folder. One of another version is not used.
const FORMAT: &str = "mcp-fleet try, format 1\n";

/// The state folder, which only one process uses at a time.
#[derive(Debug)]
pub(crate) struct State {
    folder: PathBuf,
    /// Locked while this process lives.
    _lock: File,
}

impl State {
    /// Opens the folder, and creates it if it does not exist. Fails if another process uses it.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let failed = || format!("failed to create the state folder {}", folder.display());
        create_folder(folder).with_context(failed)?;
        let folder = folder.canonicalize().with_context(failed)?;
        let path = folder.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("failed to open {}", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            bail!(
                "these files are being tried already, by process {}. Stop that one first, or give this one a state folder \
                 of its own with --state",
                holder.trim()
            );
        }
        lock.set_len(0).and_then(|()| lock.rewind()).context("failed to write the lock")?;
        writeln!(lock, "{}", std::process::id()).context("failed to write the lock")?;
        let format = folder.join("format");
        match fs::read_to_string(&format) {
            Ok(found) if found == FORMAT => {}
            Ok(_) => {
                bail!("{} was made by another version; delete it, or choose another with --state", folder.display())
            }
            Err(_) => fs::write(&format, FORMAT).with_context(|| format!("failed to write {}", format.display()))?,
        }
        Ok(Self { folder, _lock: lock })
    }

    /// Returns the folder, without links.
    pub(crate) fn root(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of a file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the path of a folder in it, which is created.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        create_folder(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(path)
    }

    /// Replaces a file in it, which only its owner may read.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        write_private(&self.path(name), bytes)
    }

    /// Opens a file in it to append lines to.
    pub(crate) fn append(&self, name: &str) -> anyhow::Result<File> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            create_folder(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        file.with_context(|| format!("failed to open {}", path.display()))
    }
}

/// Replaces a file, which only its owner may read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    private_files::replace(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

/// Returns where the state of the fleet in these files is by default: below the user's state folder, under a name that is
/// the same for the same files.
pub(crate) fn default_folder(files: &[PathBuf]) -> anyhow::Result<PathBuf> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
    let base = base.context("neither XDG_STATE_HOME nor HOME is set; choose a state folder with --state")?;
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.canonicalize().with_context(|| format!("failed to find {}", file.display()))?.hash(&mut hasher);
    }
    let first = files.first().and_then(|file| file.canonicalize().ok()).unwrap_or_default();
    let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(base.join("mcp-fleet/try").join(format!("{name}-{:08x}", hasher.finish() & 0xffff_ffff)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_one_process_uses_a_state_folder() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("state");
        let first = State::open(&folder).unwrap();
        // A lock belongs to an open file, so that another one in this process is refused too.
        let refused = State::open(&folder).unwrap_err().to_string();
        assert!(refused.contains(&format!("by process {}", std::process::id())), "{refused}");
        drop(first);
        State::open(&folder).unwrap();
        fs::write(folder.join("format"), "other").unwrap();
        assert!(State::open(&folder).unwrap_err().to_string().contains("another version"));
    }

    #[test]
    fn nobody_else_may_read_it() {
        let base = tempfile::tempdir().unwrap();
        let state = State::open(&base.path().join("state")).unwrap();
        state.write("secret", b"x").unwrap();
        state.append("logs/a.log").unwrap();
        let mode = |path: &str| fs::metadata(state.path(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("secret"), mode("logs"), mode("logs/a.log")), (0o700, 0o600, 0o700, 0o600));
    }
}
