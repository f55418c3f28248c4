//! Where a cluster keeps its files, and the addresses inside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The node's address. Every cluster has its own network namespace, so all of them use the same one.
pub const NODE_ADDRESS: &str = "10.200.0.2";
/// The port of the API server.
pub const API_PORT: u16 = 6443;
/// Addresses of pods.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Addresses of pods on the one node; the controller manager hands out the same range first.
pub const NODE_POD_CIDR: &str = "10.244.0.0/24";
/// Addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The API server's own Service, the first address of [`SERVICE_CIDR`].
pub const API_SERVICE: &str = "10.96.0.1";
/// The cluster's DNS Service.
pub const DNS_SERVICE: &str = "10.96.0.10";
/// The cluster's DNS domain.
pub const DOMAIN: &str = "cluster.local";
/// What a pod's network namespace is held open with.
pub const PAUSE_IMAGE: &str = "mcp-fleet.local/pause:1";

/// The folders and files of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The cluster's name.
    pub name: String,
    /// Everything the cluster writes lies under this folder.
    pub state: PathBuf,
}

impl Layout {
    /// The layout of the cluster `name`, whether it exists or not.
    pub fn new(name: &str) -> Result<Self> {
        // It becomes a folder, a node's name and a cgroup; unix sockets below it must fit 108 bytes.
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty()
            || name.len() > 30
            || !name.bytes().all(plain)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            bail!("a cluster's name is 1 to 30 lower-case letters, digits and inner dashes, not {name:?}");
        }
        Ok(Self { name: name.to_owned(), state: base()?.join(name) })
    }

    /// The node's name in the API.
    pub fn node(&self) -> String {
        format!("{}-node", self.name)
    }

    /// A file or folder of the cluster.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.state.join(relative)
    }

    /// The same as text, for programs' arguments and configurations.
    pub fn text(&self, relative: &str) -> String {
        self.path(relative).display().to_string()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// Logs of the cluster's programs, one file each.
    pub fn logs(&self) -> PathBuf {
        self.path("log")
    }

    /// The socket of containerd.
    pub fn containerd_socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    /// The cluster's cgroup in every hierarchy, absolute.
    pub fn cgroup(&self) -> String {
        format!("/mcp-fleet/{}", self.name)
    }
}

/// `/var/lib/mcp-fleet` for root; for others, who can have kind and the API server alone, their own state folder.
fn base() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/mcp-fleet"));
    }
    let state = match std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()) {
        Some(state) => PathBuf::from(state),
        None => {
            Path::new(&std::env::var_os("HOME").context("neither XDG_STATE_HOME nor HOME is set")?).join(".local/state")
        }
    };
    Ok(state.join("mcp-fleet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_state_folder_are_refused() {
        for name in ["", "..", "a/b", "Fleet", "-a", "a-", &"a".repeat(31)] {
            assert!(Layout::new(name).is_err(), "{name:?}");
        }
        assert!(Layout::new("fleet-2").is_ok());
    }
}
