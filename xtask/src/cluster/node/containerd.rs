//! containerd from Debian, with its own root, state and socket, separate from the host's.

use std::fs;

use anyhow::Result;

use super::super::layout::{Layout, PAUSE_IMAGE};
use super::super::plan::Unit;

/// Writes containerd's configuration.
pub fn configure(layout: &Layout) -> Result<()> {
    fs::write(layout.path("containerd.toml"), configuration(layout))?;
    fs::create_dir_all(layout.path("loaded"))?;
    Ok(())
}

/// Returns the unit of containerd, which is Debian's program on PATH.
pub fn unit(layout: &Layout) -> Unit {
    Unit {
        name: "containerd".to_owned(),
        command: vec!["containerd".to_owned(), "--config".to_owned(), layout.path_string("containerd.toml")],
        wait_for: None,
    }
}

fn configuration(layout: &Layout) -> String {
    let root = layout.path_string("containerd");
    let socket = layout.containerd_socket();
    let cni = layout.path_string("cni");
    format!(
        r#"version = 2
root = "{root}"
# In the node's private /run, because killed shims leave their sockets behind.
state = "/run/mcp-fleet/containerd"
disabled_plugins = [
  # It would create /opt/containerd on the host.
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE, a score below our own cannot be set, and creating the sandbox would fail.
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni}/bin"
  conf_dir = "{cni}/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#,
        socket = socket.display(),
    )
}
