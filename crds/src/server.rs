//! `MCPServer`: one MCP server and the catalogue of its tools.

mod tool;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use mcp_fleet_policy::units::{Bytes, Window};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use tool::{Price, Tool};

use crate::condition::conditions_schema;
use crate::schema::rules;

/// An MCP server of a tenant, and the tools of it that exist for callers.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mcp-fleet.dev",
    version = "v1alpha1",
    kind = "MCPServer",
    plural = "mcpservers",
    singular = "mcpserver",
    shortname = "mcps",
    category = "mcp",
    namespaced,
    status = "MCPServerStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.source.type"}"#,
    printcolumn = r#"{"name":"Tools","type":"integer","jsonPath":".status.tools"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.workspace) || self.replicas <= 1",
     "replicas must be 0 or 1 where there is a workspace: it is mounted by one pod at a time; lower replicas or remove workspace"),
    ("has(self.workspace) == has(oldSelf.workspace)",
     "workspace cannot be added or removed later; create another server instead"),
])))]
pub struct MCPServerSpec {
    /// Where the server comes from.
    pub source: Source,
    /// Pods of the server; at most one where there is a workspace, 0 stops it. Default: 1.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 16))]
    pub replicas: u32,
    /// A directory that outlives the pod. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// The catalogue: a tool that is not here does not exist for callers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tools: Vec<Tool>,
    /// Sizes, times and concurrency of calls.
    #[serde(default)]
    pub limits: ServerLimits,
}

/// One.
const fn default_replicas() -> u32 {
    1
}

/// Where a server comes from. A union: `type` names the member that is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.type == 'Stdio' ? has(self.stdio) : !has(self.stdio)", "source.stdio must be set when source.type is Stdio"),
])))]
pub struct Source {
    /// Stdio: a program in an image that speaks MCP over its standard input and output.
    #[serde(rename = "type")]
    pub kind: SourceType,
    /// The program, for type Stdio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<Stdio>,
}

/// What kind of source a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceType {
    /// A program in an image that speaks MCP over its standard input and output.
    Stdio,
}

/// A program that speaks MCP over its standard input and output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stdio {
    /// The image. Must be allowed by the tenant (`spec.images`).
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@\-]*$"))]
    pub image: String,
    /// The program and its arguments. Required, since the image's own entrypoint is not used; no shell is involved.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// Environment variables of the program, beside PATH, HOME and TMPDIR. No secrets: any reader of this object sees
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// Compute resources of the pod's tool container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Value of the variable.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Compute resources of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// The most that the container may use: `cpu`, `memory`, `ephemeral-storage`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
    /// What the scheduler sets aside for it. Default: the limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
}

/// A directory that outlives the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self == oldSelf", "workspace cannot be changed; create another server instead"),
    ("!self.mountPath.contains('//') && !self.mountPath.contains('/.') && !self.mountPath.endsWith('/')",
     "workspace.mountPath must be normalised: no `//`, no part that begins with a dot, no slash at the end"),
    ("!['/mcp-fleet', '/proc', '/sys', '/dev', '/etc', '/tmp', '/var/run', '/run', '/bin', '/sbin', '/lib', '/lib64', '/usr'].exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/'))",
     "workspace.mountPath must not lie in a directory of the system or of MCP Fleet; use one of its own such as /workspace"),
])))]
pub struct Workspace {
    /// Where the program sees it: an absolute path of its own, such as /workspace.
    #[schemars(length(min = 2, max = 256), regex(pattern = "^/[^:\\x00]+$"))]
    pub mount_path: String,
    /// Its size: a quantity such as 1Gi. Of the cluster's default storage class.
    pub storage: Quantity,
}

/// Sizes, times and concurrency of calls to one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.timeout) >= duration('100ms') && duration(self.timeout) <= duration('1h')", "limits.timeout must be between 100ms and 1h"),
    ("quantity(self.maxRequestSize).compareTo(quantity('1Ki')) >= 0 && quantity(self.maxRequestSize).compareTo(quantity('16Mi')) <= 0",
     "limits.maxRequestSize must be between 1Ki and 16Mi"),
    ("quantity(self.maxResponseSize).compareTo(quantity('1Ki')) >= 0 && quantity(self.maxResponseSize).compareTo(quantity('64Mi')) <= 0",
     "limits.maxResponseSize must be between 1Ki and 64Mi"),
])))]
pub struct ServerLimits {
    /// How long a call may take, from the gateway to the server and back: a duration. Default: 30s.
    #[serde(default = "default_timeout")]
    pub timeout: Window,
    /// The largest request that the gateway reads: a whole number of bytes such as 256Ki, at most 16Mi. Default: 256Ki.
    #[serde(default = "default_max_request")]
    pub max_request_size: Bytes,
    /// The largest result that the gateway releases; a larger one is refused, never cut. A whole number of bytes such
    /// as 4Mi, at most 64Mi. Default: 4Mi.
    #[serde(default = "default_max_response")]
    pub max_response_size: Bytes,
    /// Calls in flight, over all principals. Default: 16.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent_calls: u32,
}

/// Half a minute.
const fn default_timeout() -> Window {
    Window::from_secs(30)
}

/// 256 KiB.
const fn default_max_request() -> Bytes {
    Bytes::new(256 << 10)
}

/// 4 MiB.
const fn default_max_response() -> Bytes {
    Bytes::new(4 << 20)
}

/// Sixteen.
const fn default_concurrency() -> u32 {
    16
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            timeout: default_timeout(),
            max_request_size: default_max_request(),
            max_response_size: default_max_response(),
            max_concurrent_calls: default_concurrency(),
        }
    }
}

/// What the operator says about a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPServerStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Tools in the catalogue that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<i32>,
    /// URL of the server's MCP endpoint at the tenant's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Ready, Reconciling, Stalled, Accepted, PolicyCurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}
