//! The cache of build results, and the keys that identify their inputs.
//!
//! The cache is outside `target/`, so that `cargo clean` does not cause minutes of rebuilding Kubernetes.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Returns the cache folder: `$XDG_CACHE_HOME/mcp-fleet`, or `~/.cache/mcp-fleet`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("mcp-fleet"))
}

/// Hash of everything that determines the result of a build. [`Key::finish`] returns it as a short name.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds a text, such as a version or a flag.
    pub fn text(mut self, text: &str) -> Self {
        self.0.update(text.len().to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds a file, or a folder and everything in it: names, contents, and targets of links.
    pub fn path(self, path: &Path) -> Result<Self> {
        let kind = fs::symlink_metadata(path).with_context(|| format!("failed to read {}", path.display()))?;
        let name = path.file_name().unwrap_or_else(|| OsStr::new("")).to_string_lossy();
        let mut key = self.text(&name);
        if kind.is_dir() {
            let mut entries: Vec<PathBuf> =
                fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
            entries.sort();
            for entry in entries {
                key = key.path(&entry)?;
            }
            Ok(key)
        } else if kind.is_symlink() {
            Ok(key.text(&fs::read_link(path)?.to_string_lossy()))
        } else {
            let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
            key.0.update(bytes.len().to_le_bytes());
            key.0.update(bytes);
            Ok(key)
        }
    }

    /// Returns the key as twelve hex digits: enough to distinguish the builds of one machine.
    pub fn finish(self) -> String {
        self.0.finalize().iter().take(6).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Returns the cached folder `<root>/<kind>/<name>-<key>`, and creates it with `fill` if it is missing. `fill` writes
/// to a temporary folder, so that an interrupted build is never mistaken for a finished one. A new build replaces those
/// of the same name with other keys.
pub fn folder(kind: &str, name: &str, key: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = root()?.join(kind);
    let finished = parent.join(format!("{name}-{key}"));
    fs::create_dir_all(&parent).with_context(|| format!("failed to create {}", parent.display()))?;
    // Two builds of the same thing at once would be slower, so the second waits and then uses the result of the first.
    let lock = fs::File::create(parent.join(format!(".{name}.lock")))?;
    lock.lock()?;
    if finished.is_dir() {
        return Ok(finished);
    }
    let unfinished = parent.join(format!(".{name}-{key}.unfinished"));
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished)?;
    fill(&unfinished)?;
    for entry in fs::read_dir(&parent)? {
        let entry = entry?.path();
        let old = entry.file_name().and_then(OsStr::to_str).is_some_and(|file| is_build_of(file, name));
        if old {
            remove(&entry)?;
        }
    }
    fs::rename(&unfinished, &finished)?;
    Ok(finished)
}

fn is_build_of(file: &str, name: &str) -> bool {
    file.strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|key| key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Removes a folder and everything in it. Does nothing if it does not exist.
pub fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_when_the_same_text_is_split_differently() {
        let one = Key::default().text("ab").text("c").finish();
        let two = Key::default().text("a").text("bc").finish();
        assert_ne!(one, two);
        assert_eq!(one.len(), 12);
    }

    #[test]
    fn only_builds_of_the_same_name_are_replaced() {
        assert!(is_build_of("server-0123456789ab", "server"));
        assert!(!is_build_of("server-time-0123456789ab", "server"));
        assert!(!is_build_of("server", "server"));
    }
}
