//! Credentials in a folder, one folder for each principal, with the entries of a credential Secret as files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mcp_fleet_core::local::{Credential, LocalOperator, Objects};
use mcp_fleet_core::private_files::create_folder;

use super::state::write_private;

/// Longest time between two looks at a credential.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Files of a credential. The token is written last, when the rest belongs to it.
const TOKEN: &str = "token";
/// The files of a credential.
const ENTRIES: [&str; 5] = [TOKEN, "url", "ca.crt", "expiresAt", "rotatesAt"];

/// The credentials of all principals.
#[derive(Debug)]
pub(crate) struct Credentials {
    folder: PathBuf,
    /// When the credential of a principal has to be looked at again.
    due: BTreeMap<PathBuf, Instant>,
}

impl Credentials {
    /// Returns the folder, without links.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Uses a folder, which is created.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let failed = || format!("failed to create {}", folder.display());
        create_folder(folder).with_context(failed)?;
        let folder = folder.canonicalize().with_context(failed)?;
        Ok(Self { folder, due: BTreeMap::new() })
    }

    /// Returns the folder of a principal.
    pub(crate) fn of(&self, namespace: &str, principal: &str) -> PathBuf {
        self.folder.join(namespace).join(principal)
    }

    /// Has all credentials looked at again, because objects have changed.
    pub(crate) fn recheck(&mut self) {
        self.due.clear();
    }

    /// Issues and rotates the credentials of all principals, and removes those of principals that do not exist any more.
    pub(crate) fn keep(&mut self, operator: &LocalOperator, tenants: &[Objects]) -> anyhow::Result<()> {
        let now = Instant::now();
        let mut wanted = BTreeSet::new();
        for objects in tenants {
            for principal in &objects.principals {
                let metadata = &principal.metadata;
                let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
                let folder = self.of(namespace.unwrap_or_default(), name.unwrap_or_default());
                wanted.insert(folder.clone());
                if self.due.get(&folder).is_some_and(|due| *due > now) {
                    continue;
                }
                let token = fs::read_to_string(folder.join(TOKEN)).ok();
                let check_in = match operator.credential(objects, principal, token.as_deref())? {
                    Credential::Keep(wait) => wait,
                    Credential::Issue { entries, check_in } => {
                        write(&folder, &entries)?;
                        check_in
                    }
                };
                self.due.insert(folder, now + check_in.min(LONGEST_WAIT));
            }
        }
        self.remove_others(&wanted)
    }

    fn remove_others(&mut self, wanted: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let gone: Vec<PathBuf> = self.due.keys().filter(|folder| !wanted.contains(*folder)).cloned().collect();
        for folder in gone {
            self.due.remove(&folder);
            remove(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
        }
        Ok(())
    }
}

/// Removes a credential, and its folder unless something else is in it.
fn remove(folder: &Path) -> std::io::Result<()> {
    for entry in ENTRIES {
        match fs::remove_file(folder.join(entry)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir(folder) {
        Err(error)
            if ![std::io::ErrorKind::NotFound, std::io::ErrorKind::DirectoryNotEmpty].contains(&error.kind()) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn write(folder: &Path, entries: &[(&'static str, String)]) -> anyhow::Result<()> {
    create_folder(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let (token, rest): (Vec<_>, Vec<_>) = entries.iter().partition(|(name, _)| *name == TOKEN);
    for (name, content) in rest.into_iter().chain(token) {
        write_private(&folder.join(name), content.as_bytes())?;
    }
    Ok(())
}
