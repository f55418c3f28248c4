//! What a tenant's tool pods have, and what its servers may add.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::marks::{self, AnnotationValue, LabelValue, valid_keys};
use super::{SUBDOMAIN, Toleration};
use crate::schema::rules;

/// Labels of nodes that a server may choose nodes by, whatever its tenant allows: the platforms and the parts of the cluster that a
/// program can need. Others can be those of a pool that is made for whoever asks, or of one node.
const FREE_NODE_LABELS: [&str; 4] =
    ["kubernetes.io/arch", "kubernetes.io/os", "topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// Pattern of a key of a label or annotation, or of all keys of one domain.
const KEYS: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/([*]|[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)|[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)$";

/// What the pods of all servers of a tenant have, and what a server may add in its `pod`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    valid_keys("nodeSelector"),
    valid_keys("labels"),
    valid_keys("annotations"),
    marks::no_reserved_labels(),
    marks::no_reserved_annotations(),
])))]
pub struct ServerPods {
    /// Labels that a node must have, with these values, at most 16. A server can only add others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that all pods tolerate, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of pods whose server names no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub priority_class_name: Option<String>,
    /// RuntimeClass of pods whose server names no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub runtime_class_name: Option<String>,
    /// Labels of all pods besides those of MCP Fleet, at most 16. The domains mcp-fleet.dev, kubernetes.io and k8s.io are
    /// reserved. A server cannot give them another value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of all pods besides those of MCP Fleet, at most 16. The domains mcp-fleet.dev and kubectl.kubernetes.io are
    /// reserved. A server cannot give them another value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, AnnotationValue>", extend("maxProperties" = 16))]
    pub annotations: BTreeMap<String, String>,
    /// What a server may add in its `pod`, besides what chooses nodes by architecture, operating system, zone and region. Absent:
    /// nothing.
    #[serde(default, skip_serializing_if = "AllowedPodSettings::is_empty")]
    pub allowed: AllowedPodSettings,
}

impl ServerPods {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a server may choose nodes by the label with this key, whatever its tenant allows.
pub fn is_free_node_label(key: &str) -> bool {
    FREE_NODE_LABELS.contains(&key)
}

/// What a server may add to its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    marks::short_domains("nodeLabels"),
    marks::short_domains("labels"),
    marks::short_domains("annotations"),
])))]
pub struct AllowedPodSettings {
    /// Keys of labels of nodes by which a server may choose nodes in `nodeSelector`, `affinity` and `topologySpreadConstraints`, at
    /// most 32; `example.com/*` is all keys of that domain. Without being listed, it may use kubernetes.io/arch, kubernetes.io/os,
    /// topology.kubernetes.io/zone and topology.kubernetes.io/region, and kubernetes.io/hostname as the key of a constraint with
    /// ScheduleAnyway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 317), regex(pattern = KEYS)), extend("x-kubernetes-list-type" = "set"))]
    pub node_labels: Vec<String>,
    /// Tolerations that a server may have, at most 16: each of these, or a narrower one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// PriorityClasses of which a server may name one, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = SUBDOMAIN)), extend("x-kubernetes-list-type" = "set"))]
    pub priority_class_names: Vec<String>,
    /// RuntimeClasses of which a server may name one, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = SUBDOMAIN)), extend("x-kubernetes-list-type" = "set"))]
    pub runtime_class_names: Vec<String>,
    /// Keys of labels that a server may set, at most 32; `example.com/*` is all keys of that domain. Network policies of the
    /// cluster and webhooks can depend on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 317), regex(pattern = KEYS)), extend("x-kubernetes-list-type" = "set"))]
    pub labels: Vec<String>,
    /// Keys of annotations that a server may set, at most 32; `example.com/*` is all keys of that domain. Annotations can attach
    /// pods to other networks and have containers added to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 317), regex(pattern = KEYS)), extend("x-kubernetes-list-type" = "set"))]
    pub annotations: Vec<String>,
}

impl AllowedPodSettings {
    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
