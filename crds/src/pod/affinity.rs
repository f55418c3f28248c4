//! Nodes that pods require or prefer.
//!
//! There is no affinity to other pods: what a pod may be near to, or repels, would tell and change where pods of others run.
//! `topologySpreadConstraints` keeps the pods of one workload apart.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::marks::{KEY, MAX_KEY, short_domain};
use crate::integer;
use crate::schema::{cel, rules};

/// Nodes that pods require or prefer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Nodes, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
}

/// Nodes that pods require or prefer, by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAffinity {
    /// Nodes on which the pods may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_during_scheduling_ignored_during_execution: Option<NodeTerms>,
    /// Nodes on which the pods should run, at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredNodes>,
}

/// Terms of which a node must match at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTerms {
    /// The terms, 1 to 4.
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_selector_terms: Vec<NodeTerm>,
}

/// Nodes that are preferred, and how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodes {
    /// How much, 1 to 100.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: u32,
    /// The nodes.
    pub preference: NodeTerm,
}

/// Requirements on the labels of a node, all of which must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTerm {
    /// The requirements, 1 to 8.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<NodeRequirement>,
}

/// A requirement on one label of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    cel("self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : self.operator in ['Gt', 'Lt'] ? has(self.values) && size(self.values) == 1 && self.values[0].matches('^[0-9]{1,18}$') : !has(self.values) || size(self.values) == 0",
        "values must be listed with In and NotIn, be one whole number with Gt and Lt, and be absent with Exists and DoesNotExist"),
    short_domain("key"),
])))]
pub struct NodeRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = MAX_KEY), regex(pattern = KEY))]
    pub key: String,
    /// How its value is compared.
    pub operator: NodeOperator,
    /// Values to compare with, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63), regex(pattern = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

/// How the value of a node's label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeOperator {
    /// It is one of the values.
    In,
    /// It is none of the values.
    NotIn,
    /// The node has the label.
    Exists,
    /// The node does not have the label.
    DoesNotExist,
    /// It is a whole number that is larger than the value.
    Gt,
    /// It is a whole number that is smaller than the value.
    Lt,
}
