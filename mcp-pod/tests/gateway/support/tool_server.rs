//! A real shim with a tool server behind it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::pki::{GATEWAY_URI, Pki};

/// A real shim, terminated on drop.
pub(crate) struct ToolServer {
    pub(crate) address: SocketAddr,
    /// The folder that the tool server may write to.
    pub(crate) workspace: tempfile::TempDir,
    child: Child,
}

impl Drop for ToolServer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl ToolServer {
    /// Starts a shim with a server that is this Python program.
    pub(crate) fn start(pki: &Pki, program: &str) -> Self {
        let workspace = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-pod"))
            .arg("shim")
            .arg(format!("--tls-dir={}", pki.shim_dir().display()))
            .arg(format!("--workspace={}", workspace.path().display()))
            .args(["--gateway-identity", GATEWAY_URI, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--"])
            .args(["/usr/bin/python3", program])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let address = first["fields"]["calls"].as_str().unwrap().parse().unwrap();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { address, workspace, child }
    }
}
