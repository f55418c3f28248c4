//! The cache folder, and keys that change when an input does.
//!
//! It lies outside `target/`, so that `cargo clean` does not cost minutes of building Kubernetes.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// `$XDG_CACHE_HOME/mcp-fleet`, or `~/.cache/mcp-fleet`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("mcp-fleet"))
}

/// Collects everything that decides a build's result; [`Key::finish`] gives a short name for it.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds a text: a version, a flag.
    pub fn text(mut self, text: &str) -> Self {
        self.0.update(text.len().to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds a file or a folder with all that is in it: names, contents, and links' targets.
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

    /// Twelve hex digits: enough to tell the builds of one machine apart.
    pub fn finish(self) -> String {
        self.0.finalize().iter().take(6).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// The folder of one cached thing, `<root>/<kind>/<name>-<key>`. `fill` makes it in a temporary place first, so that a
/// build that was cut short is never taken for a finished one. Other builds of the same name are removed.
pub fn folder(kind: &str, name: &str, key: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = root()?.join(kind);
    let finished = parent.join(format!("{name}-{key}"));
    fs::create_dir_all(&parent).with_context(|| format!("failed to create {}", parent.display()))?;
    // Two builds of one thing would take twice the time each: the second waits and finds the first's result.
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

/// Removes a folder with all that is in it; that it is not there is fine.
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
    fn a_key_tells_where_one_text_ends_and_the_next_begins() {
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
