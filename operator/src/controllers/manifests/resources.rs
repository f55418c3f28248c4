//! Compute resources that containers get if nothing else is declared, and those of our own init container.

use serde_json::{Value, json};

/// Processor time, memory and local disk, under their names in Kubernetes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compute {
    pub cpu: &'static str,
    pub memory: &'static str,
    pub ephemeral_storage: &'static str,
}

/// What a container may use at most if it sets no limit.
pub(crate) const DEFAULT_LIMITS: Compute = Compute { cpu: "1", memory: "256Mi", ephemeral_storage: "256Mi" };
/// What is reserved for a container that sets neither a request nor a limit.
pub(crate) const DEFAULT_REQUESTS: Compute = Compute { cpu: "20m", memory: "64Mi", ephemeral_storage: "16Mi" };

impl Compute {
    /// Returns the quantities by name.
    pub(crate) const fn entries(&self) -> [(&'static str, &'static str); 3] {
        [("cpu", self.cpu), ("memory", self.memory), ("ephemeral-storage", self.ephemeral_storage)]
    }

    /// Renders the quantities.
    pub(crate) fn render(&self) -> Value {
        json!({"cpu": self.cpu, "memory": self.memory, "ephemeral-storage": self.ephemeral_storage})
    }
}
