//! Files and addresses of a cluster: where its state is on disk, and which addresses its network uses.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Address of the node. Every cluster has its own network namespace, so all clusters use the same address.
pub const NODE_ADDRESS: &str = "10.200.0.2";
/// Port of the API server.
pub const API_PORT: u16 = 6443;
/// Addresses of all pods.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Addresses of pods on the only node: the range that the controller manager assigns first.
pub const NODE_POD_CIDR: &str = "10.244.0.0/24";
/// Addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Address of the API server's Service: the first one in [`SERVICE_CIDR`].
pub const API_SERVICE: &str = "10.96.0.1";
/// Address of the cluster's DNS Service.
pub const DNS_SERVICE: &str = "10.96.0.10";
/// DNS domain of the cluster.
pub const DOMAIN: &str = "cluster.local";
/// Image of the pause container, which holds the namespaces of a pod open.
pub const PAUSE_IMAGE: &str = "mcp-fleet.local/pause:1";

/// Folders and files of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Name of the cluster.
    pub name: String,
    /// Folder of everything that the cluster writes.
    pub state: PathBuf,
}

impl Layout {
    /// Returns the layout of cluster `name`, whether or not that cluster exists. Fails if the name is not usable.
    pub fn new(name: &str) -> Result<Self> {
        // The name becomes a folder, a node name and a cgroup. Paths of unix sockets in the folder must fit 108 bytes.
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty()
            || name.len() > 30
            || !name.bytes().all(plain)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            bail!(
                "{name:?} is not a valid cluster name: use 1 to 30 lower-case letters, digits and dashes, with no \
                 dash at either end"
            );
        }
        Ok(Self { name: name.to_owned(), state: state_root()?.join(name) })
    }

    /// Returns the name of the node in the API.
    pub fn node(&self) -> String {
        format!("{}-node", self.name)
    }

    /// Returns the path of a file or folder of the cluster.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.state.join(relative)
    }

    /// Returns the path of a file or folder as text, for arguments and configuration files.
    pub fn path_string(&self, relative: &str) -> String {
        self.path(relative).display().to_string()
    }

    /// Returns the path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// Returns the folder of the logs, with one file for each program.
    pub fn logs(&self) -> PathBuf {
        self.path("log")
    }

    /// Returns the path of the containerd socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    /// Returns the absolute path of the cluster's cgroup, which is the same in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("/mcp-fleet/{}", self.name)
    }
}

/// Returns `/var/lib/mcp-fleet` for root, and a folder in the user's state folder for everyone else, who can only run
/// kind clusters and API-server-only clusters.
fn state_root() -> Result<PathBuf> {
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
