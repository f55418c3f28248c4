//! `MCPScope`: what one server's tools may be used for; its name is the OAuth scope string.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use mcp_fleet_policy::class::Class;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::argument::Argument;
use crate::condition::conditions_schema;
use crate::reference::Reference;

/// A set of tools of one server, and how far each may be used. Grants nothing until a principal holds it.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mcp-fleet.dev",
    version = "v1alpha1",
    kind = "MCPScope",
    plural = "mcpscopes",
    singular = "mcpscope",
    shortname = "mcpsc",
    category = "mcp",
    namespaced,
    status = "MCPScopeStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Server","type":"string","jsonPath":".spec.serverRef.name"}"#,
    printcolumn = r#"{"name":"Classes","type":"string","jsonPath":".spec.classes"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MCPScopeSpec {
    /// The server that it speaks of.
    pub server_ref: Reference,
    /// Tools by name. A tool that is named is governed by its entry here alone, whatever `classes` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tools: Vec<ScopedTool>,
    /// Classes that are granted among the tools that are not named here. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub classes: Vec<Class>,
}

/// A tool that a scope names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopedTool {
    /// Name of the tool, as in the server's catalogue.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_./-]+$"))]
    pub name: String,
    /// The arguments that may be sent, each within its rule here and within the catalogue's. Absent: as the catalogue
    /// says. An empty list grants the tool without arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub arguments: Option<Vec<Argument>>,
}

/// What the operator says about a scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPScopeStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Accepted, ResolvedRefs, PolicyCurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}
