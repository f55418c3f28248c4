//! The state of a workload that statuses show.

use serde_json::{Value, json};

/// How far a Deployment or `StatefulSet` is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    generation: i64,
    replicas: i64,
    observed_generation: i64,
    /// Number of pods that exist.
    existing_replicas: i64,
    updated_replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
}

impl Workload {
    /// Reads the state of a live object; none if it is not a workload.
    pub(crate) fn of(kind: &str, object: &Value) -> Option<Self> {
        let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        matches!(kind, "Deployment" | "StatefulSet").then(|| Self {
            generation: number("/metadata/generation"),
            replicas: number("/spec/replicas"),
            observed_generation: number("/status/observedGeneration"),
            existing_replicas: number("/status/replicas"),
            updated_replicas: number("/status/updatedReplicas"),
            ready_replicas: number("/status/readyReplicas"),
            available_replicas: number("/status/availableReplicas"),
        })
    }

    /// Returns the state where a live object has it.
    pub(crate) fn live(&self) -> Value {
        json!({
            "metadata": {"generation": self.generation},
            "spec": {"replicas": self.replicas},
            "status": {
                "observedGeneration": self.observed_generation,
                "replicas": self.existing_replicas,
                "updatedReplicas": self.updated_replicas,
                "readyReplicas": self.ready_replicas,
                "availableReplicas": self.available_replicas,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_shown_as_it_is() {
        let live = json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {"observedGeneration": 2,
            "replicas": 4, "updatedReplicas": 1, "readyReplicas": 2, "availableReplicas": 2}});
        assert_eq!(Workload::of("Deployment", &live).unwrap().live(), live);
        assert_eq!(Workload::of("Service", &live), None);
    }
}
