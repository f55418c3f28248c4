//! `MCPServer`: one MCP server and the catalogue of its tools.

mod breaker;
mod container;
mod http;
mod loops;
mod tool;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use mcp_fleet_policy::units::{Bytes, Window, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use breaker::Breaker;
pub use container::{
    Container, EnvFrom, EnvSource, EnvVar, Execution, Files, KeyRef, KeyToPath, Medium, OnChange, Resources, Scratch,
    SourceRef,
};
pub use http::{Http, HttpTransport};
pub use loops::Loops;
pub use tool::{Price, ResultPrice, Tool};

use crate::argument::MAX_TOOLS;
use crate::pod::{PodSettings, PullSecretRef};
use crate::quantity::QuantitySchema;
use crate::schema::{duration_within, rules, size_within};
use crate::{condition, integer};

/// An MCP server of a tenant, and the catalogue of its tools. Callers can use only tools that the catalogue declares.
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
     "replicas must be 0 or 1 if workspace is set, because only one pod at a time may mount it; lower replicas or remove workspace"),
    ("has(self.workspace) == has(oldSelf.workspace)",
     "workspace cannot be added or removed later; create another server instead"),
    ("!has(self.breaker) || !has(self.breaker.slowCallDuration) || !has(self.limits) || duration(self.breaker.slowCallDuration) < duration(self.limits.timeout)",
     "breaker.slowCallDuration must be shorter than limits.timeout, because a call that takes longer fails; lower it or raise the timeout"),
])))]
pub struct MCPServerSpec {
    /// Where the program of the server comes from.
    pub source: Source,
    /// Number of pods, 0 to 16; at most 1 if `workspace` is set. 0 stops the server. Default: 1.
    #[serde(default = "default_replicas", deserialize_with = "integer::required")]
    #[schemars(range(min = 0, max = 16))]
    pub replicas: u32,
    /// Secrets with which the image is pulled from a private registry, at most 4, beside those of the tenant's
    /// `images.pullSecrets`. Each is of type `kubernetes.io/dockerconfigjson`, and must have the label
    /// `mcp-fleet.dev/server.NAME`, where NAME is the server's name, with an empty value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<PullSecretRef>,
    /// Where the pods run, and what marks them. The tenant's `serverPods` says what all pods have, and which tolerations,
    /// classes, labels and annotations may be set here; by default, none.
    #[serde(default, skip_serializing_if = "PodSettings::is_empty")]
    pub pod: PodSettings,
    /// When the program is stopped because nobody calls it. Absent: it always runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// A persistent directory that the program may write to. It outlives the pods. Cannot be added or removed later.
    /// Absent: the program can write only to /tmp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// The catalogue of tools, at most 512, with at most 4096 arguments in all. For callers, a tool that is not listed here does not exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TOOLS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tools: Vec<Tool>,
    /// Limits on the duration, size and concurrency of calls.
    #[serde(default)]
    pub limits: ServerLimits,
    /// When calls of a tool are refused for a while because too many of the latest ones failed.
    #[serde(default)]
    pub breaker: Breaker,
    /// What happens to an agent that goes round in circles: that repeats calls without new results.
    #[serde(default)]
    pub loops: Loops,
}

const fn default_replicas() -> u32 {
    1
}

/// Where the program of a server comes from. A union: `type` names the member that must be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.stdio) == (self.type == 'Stdio')",
     "source.stdio must be set if source.type is Stdio, and only then"),
    ("has(self.http) == (self.type == 'HTTP')",
     "source.http must be set if source.type is HTTP, and only then"),
])))]
pub struct Source {
    /// Type of the source. Stdio: a program in a container image that speaks MCP over standard input and output. HTTP: a program in a
    /// container image that serves MCP over HTTP, on a port that only the shim can reach.
    #[serde(rename = "type")]
    pub kind: SourceType,
    /// The program to run. Required if type is Stdio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<Container>,
    /// The program to run, and where it serves MCP. Required if type is HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
}

impl Source {
    /// Returns the container that runs the program. None if the member is missing that the type names.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        match self.kind {
            SourceType::Stdio => self.stdio.as_ref(),
            SourceType::HTTP => self.http().map(|http| &http.container),
        }
    }

    /// Returns what serves HTTP. None if the type is another one.
    #[must_use]
    pub fn http(&self) -> Option<&Http> {
        self.http.as_ref().filter(|_| self.kind == SourceType::HTTP)
    }
}

/// Type of the source of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceType {
    /// A program in a container image that speaks MCP over standard input and output.
    Stdio,
    /// A program in a container image that serves MCP over HTTP.
    HTTP,
}

/// When a program is stopped because nobody calls it. Its pod goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[duration_within("idle.stopAfter", limits::IDLE_STOP)])))]
pub struct Idle {
    /// Time without a call after which the program is stopped: a duration from 1m to 24h. The next call starts it, and waits for that
    /// within `limits.timeout`. What it had in memory is lost; its files stay as long as its pod does.
    pub stop_after: Window,
}

/// A persistent directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.mountPath == oldSelf.mountPath && self.accessMode == oldSelf.accessMode && has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
     "workspace.mountPath, workspace.storageClassName and workspace.accessMode cannot be changed; create another server instead"),
    ("!self.mountPath.contains('//') && !self.mountPath.contains('/.') && !self.mountPath.endsWith('/')",
     "workspace.mountPath must be normalised: no `//`, no component that begins with a dot, no slash at the end"),
    ("!['/mcp-fleet', '/proc', '/sys', '/dev', '/etc', '/tmp', '/var/run', '/run', '/bin', '/sbin', '/lib', '/lib64', '/usr'].exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/'))",
     "workspace.mountPath must not be in a system directory or in /mcp-fleet; use a separate directory such as /workspace"),
])))]
pub struct Workspace {
    /// Absolute path at which the program sees the directory, such as /workspace. Must not be in a system directory
    /// (/etc, /usr, /tmp and others) or in /mcp-fleet, and no component may begin with a dot. Cannot be changed.
    #[schemars(length(min = 2, max = 256), regex(pattern = "^/[^:\\x00]+$"))]
    pub mount_path: String,
    /// Size of the volume: a quantity such as 1Gi. A larger one makes the volume grow, if its StorageClass can do that; the condition
    /// WorkspaceCurrent says whether it has. A volume never shrinks.
    #[schemars(with = "QuantitySchema")]
    pub storage: Quantity,
    /// StorageClass of the volume, one of the tenant's `workspaces.storageClassNames`. Cannot be changed. Absent: the cluster's
    /// default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::pod::SUBDOMAIN))]
    pub storage_class_name: Option<String>,
    /// How the volume is mounted. ReadWriteOnce: by the pods of one node. ReadWriteOncePod: by one pod, which not every kind of
    /// volume can do. Cannot be changed. Default: ReadWriteOnce.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// What happens to the volume claim when the MCPServer is deleted. Retain: it stays in the runtime namespace, and the
    /// tenant's `workspaces.reattach` decides whether a new server of the same name gets it. Delete: it is deleted. If the
    /// tenant is deleted, the claim is deleted in either case. Can be changed until the server is deleted. Default: Retain.
    #[serde(default)]
    pub retain: WorkspaceRetention,
}

/// How the volume of a workspace is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// By the pods of one node.
    #[default]
    ReadWriteOnce,
    /// By one pod.
    ReadWriteOncePod,
}

/// What happens to a workspace when its server is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkspaceRetention {
    /// Its volume claim stays in the runtime namespace.
    #[default]
    Retain,
    /// Its volume claim is deleted.
    Delete,
}

/// Limits on the duration, size and concurrency of calls to one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    duration_within("limits.timeout", limits::CALL_TIMEOUT),
    size_within("limits.maxRequestSize", limits::REQUEST_SIZE),
    size_within("limits.maxResponseSize", limits::RESPONSE_SIZE),
])))]
pub struct ServerLimits {
    /// Longest time that the gateway waits for the result of a call: a duration from 100ms to 1h. Default: 30s.
    #[serde(default = "default_timeout")]
    pub timeout: Window,
    /// Largest request body that the gateway accepts: a whole number of bytes from 1Ki to 16Mi. Default: 256Ki.
    #[serde(default = "default_max_request")]
    pub max_request_size: Bytes,
    /// Largest result that the gateway passes on: a whole number of bytes from 1Ki to 64Mi. A larger result is
    /// withheld, never truncated. Default: 4Mi.
    #[serde(default = "default_max_response")]
    pub max_response_size: Bytes,
    /// Maximum number of calls in flight over all principals, 1 to 10000. If several principals hold a scope on the
    /// server, one of them may have at most half of these calls, rounded up. Default: 16.
    #[serde(default = "default_concurrency", deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent_calls: u32,
}

const fn default_timeout() -> Window {
    Window::from_secs(30)
}

const fn default_max_request() -> Bytes {
    Bytes::new(256 << 10)
}

const fn default_max_response() -> Bytes {
    Bytes::new(4 << 20)
}

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

/// Status of a server, as observed by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPServerStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of tools in the catalogue that is in force.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub tools: Option<i32>,
    /// URL of the server's MCP endpoint on the tenant's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Number of pods that are ready.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Conditions of the server: Ready, Reconciling, Stalled, Accepted, PolicyCurrent, WideArguments, NamesPortable,
    /// WorkspaceCurrent.
    #[serde(default, deserialize_with = "condition::read", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "condition::conditions_schema")]
    pub conditions: Vec<Condition>,
}
