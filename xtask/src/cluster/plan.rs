//! What a cluster's supervisor does: plain data that `up` writes and the supervisor reads.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// Everything that runs in one cluster's namespaces.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Whether the programs get a network namespace of their own, or share the host's loopback.
    pub own_network: bool,
    /// The API server's port, on the node's address or on the host's loopback.
    pub api_port: u16,
    /// Commands run once, in order, before the first unit starts.
    pub setup: Vec<Vec<String>>,
    /// Programs kept running, started in order.
    pub units: Vec<Unit>,
}

/// A program that is started again whenever it ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unit {
    /// Names the log file and the pid file.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What has to be true before the first start.
    pub wait_for: Option<Condition>,
}

/// What a unit can wait for. Programs do without, but their first failures cost them seconds of back-off.
#[derive(Debug, Serialize, Deserialize)]
pub enum Condition {
    /// Something accepts connections on this address.
    Open(String),
    /// This command succeeds.
    Succeeds(Vec<String>),
}

impl Unit {
    /// A unit whose program's file is in `folder` and called `name`.
    pub fn new(folder: &Path, name: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        let program = folder.join(name).display().to_string();
        Self { name: name.to_owned(), command: std::iter::once(program).chain(arguments).collect(), wait_for: None }
    }

    /// The unit, first started when `condition` holds.
    pub fn after(mut self, condition: Condition) -> Self {
        self.wait_for = Some(condition);
        self
    }
}

impl Plan {
    /// Where the plan of a cluster lies. The path is also what the supervisor is found by.
    pub fn file(layout: &Layout) -> PathBuf {
        layout.path("plan.json")
    }

    /// Reads a cluster's plan; `None` when there is none.
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
