//! What the pods are like that MCP Fleet makes, beside the programs in them: what they are pulled with, where they run, and
//! what marks them. The fields have the names and the form that they have in a pod.

mod affinity;
mod ceiling;
mod marks;
mod pull_secret;
mod spread;
mod toleration;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::rules;
use marks::{AnnotationValue, LabelValue, valid_keys};

pub use affinity::{Affinity, NodeAffinity, NodeOperator, NodeRequirement, NodeTerm, NodeTerms, PreferredNodes};
pub use ceiling::{AllowedPodSettings, ServerPods, is_free_node_label};
pub use marks::{is_reserved_annotation, is_reserved_label};
pub use pull_secret::PullSecretRef;
pub use spread::{TopologySpread, WhenUnsatisfiable};
pub use toleration::{TaintEffect, Toleration, TolerationOperator};

/// Pattern of the name of a PriorityClass, RuntimeClass or StorageClass (RFC 1123 subdomain).
pub(crate) const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Where pods run, and what marks them. The fields are those of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    valid_keys("nodeSelector"),
    valid_keys("labels"),
    valid_keys("annotations"),
    marks::no_reserved_labels(),
    marks::no_reserved_annotations(),
])))]
pub struct PodSettings {
    /// Labels that a node must have, with these values, at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods tolerate, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Nodes that the pods require or prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods are spread over zones, nodes or other parts of the cluster, at most 4. Only the pods of this workload
    /// count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["topologyKey", "whenUnsatisfiable"]))]
    pub topology_spread_constraints: Vec<TopologySpread>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub priority_class_name: Option<String>,
    /// RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub runtime_class_name: Option<String>,
    /// Labels that the pods have besides those of MCP Fleet, at most 16. The domains mcp-fleet.dev, kubernetes.io and k8s.io are
    /// reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
    /// Annotations that the pods have besides those of MCP Fleet, at most 16. The domains mcp-fleet.dev and
    /// kubectl.kubernetes.io are reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, AnnotationValue>", extend("maxProperties" = 16))]
    pub annotations: BTreeMap<String, String>,
}

impl PodSettings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
