//! The plan of a cluster: which commands and programs its supervisor runs. `up` writes it; the supervisor reads it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// Everything that runs in the namespaces of one cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Whether the programs get their own network namespace. Otherwise they use the host's loopback.
    pub own_network: bool,
    /// Port of the API server, on the node's address or on the host's loopback.
    pub api_port: u16,
    /// Commands that run once, in order, before the first unit starts.
    pub setup: Vec<Vec<String>>,
    /// Programs that are kept running, in start order.
    pub units: Vec<Unit>,
}

/// A program that is restarted whenever it ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unit {
    /// Name of the program, and of its log file and pid file.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Condition for the first start.
    pub wait_for: Option<Condition>,
}

/// A condition that a unit waits for. Programs would also start without it, but would lose seconds to retry back-off.
#[derive(Debug, Serialize, Deserialize)]
pub enum Condition {
    /// A server accepts connections at this address.
    Open(String),
    /// This command succeeds.
    Succeeds(Vec<String>),
}

impl Unit {
    /// Returns a unit that runs the program `name` in `folder`.
    pub fn new(folder: &Path, name: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        let program = folder.join(name).display().to_string();
        Self { name: name.to_owned(), command: std::iter::once(program).chain(arguments).collect(), wait_for: None }
    }

    /// Delays the first start until `condition` holds.
    pub fn after(mut self, condition: Condition) -> Self {
        self.wait_for = Some(condition);
        self
    }
}

impl Plan {
    /// Returns the path of a cluster's plan. The supervisor is identified by this path on its command line.
    pub fn file(layout: &Layout) -> PathBuf {
        layout.path("plan.json")
    }

    /// Reads the plan in `file`; `None` if there is no such file.
    pub fn read(file: &Path) -> Result<Option<Self>> {
        match fs::read(file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).with_context(|| format!("failed to parse {}", file.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", file.display())),
        }
    }

    /// Writes a cluster's plan.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        let file = Self::file(layout);
        fs::write(&file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("failed to write {}", file.display()))
    }
}
