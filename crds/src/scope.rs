//! `MCPScope`: a set of tools of one server that can be granted together. Its name is the OAuth scope string.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use mcp_fleet_policy::class::Class;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::argument::{Argument, MAX_ARGUMENTS, MAX_TOOLS};
use crate::names::TOOL_NAME;
use crate::reference::Reference;
use crate::{condition, integer};

/// A set of tools of one server, with restrictions on their arguments. It grants nothing until a principal holds it.
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
    /// The server whose tools the scope grants.
    pub server_ref: Reference,
    /// Tools granted by name, at most 512, with at most 4096 arguments in all. For a tool named here, only its entry applies and `classes` is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TOOLS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tools: Vec<ScopedTool>,
    /// Classes of tools granted in addition: Read, Write, Destructive. Applies to the tools of the server that `tools`
    /// does not name. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub classes: Vec<Class>,
}

/// A tool that a scope grants by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopedTool {
    /// Name of the tool in the server's catalogue.
    #[schemars(length(min = 1, max = TOOL_NAME.max_length), regex(pattern = TOOL_NAME.pattern))]
    pub name: String,
    /// Arguments that may be sent, at most 128. Each value must satisfy both the rule here and the rule in the
    /// catalogue. Absent: all arguments, as in the catalogue. Empty list: no arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_ARGUMENTS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub arguments: Option<Vec<Argument>>,
}

/// Status of a scope, as observed by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPScopeStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the scope: Ready, Reconciling, Stalled, Accepted, ResolvedRefs, PolicyCurrent.
    #[serde(default, deserialize_with = "condition::read", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "condition::conditions_schema")]
    pub conditions: Vec<Condition>,
}
