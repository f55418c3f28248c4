//! A program in a container, and what it is configured with.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mcp_fleet_policy::rules::forms::VALUE;
use mcp_fleet_policy::units::{Bytes, Window, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::QuantitySchema;
use crate::schema::{cel, duration_within, rules, size_within};

/// Pattern of an environment variable's name.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
/// Pattern of the name of a Secret or `ConfigMap` (RFC 1123 subdomain).
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Pattern of a key in a Secret or `ConfigMap`.
const KEY: &str = "^[-._a-zA-Z0-9]+$";
/// Pattern of an absolute path below the root directory, of which no part means anything to Kubernetes or a shell.
const PATH: &str = "^/[A-Za-z0-9._/@+-]+$";

/// A program in a container image, and what it is configured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&container_rules())))]
pub struct Container {
    /// Container image of the program. The tenant's `images` must allow it.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@\-]*$"))]
    pub image: String,
    /// The program, and arguments that come before `args`: at most 64 strings. Required, because the image's entrypoint is not
    /// used. No shell runs, and `$(NAME)` is not expanded. Each string has at most 4096 characters and no U+0000.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096), regex(pattern = VALUE.pattern)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// Arguments of the program after those in `command`, at most 64, in the same form. Do not put secrets here or in
    /// `command`: everyone who can read this object, and every process of the pod, can read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096), regex(pattern = VALUE.pattern)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// Environment variables of the program, at most 64. They override those of `envFrom`, and the defaults of PATH, HOME
    /// (/tmp) and TMPDIR (/tmp), which `envFrom` does not override.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// Secrets and ConfigMaps whose keys become environment variables, at most 8. Of keys that several of them have, the
    /// last one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub env_from: Vec<EnvFrom>,
    /// Secrets and ConfigMaps that the program can read as files, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub files: Vec<Files>,
    /// What happens when the contents of a Secret or ConfigMap that `env`, `envFrom` or `files` name changes. Restart: the pods
    /// are replaced, within about a minute. Ignore: they go on; new files appear within about two minutes, and variables when
    /// a pod is replaced for another reason. Default: Restart.
    #[serde(default)]
    pub on_change: OnChange,
    /// Directories for temporary data, such as caches, at most 8. They are empty when a pod starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub scratch: Vec<Scratch>,
    /// Absolute path of the directory in which the program starts. Absent: that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^/[^:\\x00]*$"))]
    pub working_dir: Option<String>,
    /// Longest time that the program may take to listen, to answer `initialize` and to list its tools: a duration from 1s to 10m. One that
    /// takes longer is stopped and started again. Default: 1m.
    #[serde(default = "default_start_timeout")]
    pub start_timeout: Window,
    /// Time that the program has to end by itself: a duration from 1s to 5m. It begins when the standard input of a program is closed
    /// that speaks MCP over it, which then gets SIGTERM and is killed two seconds later; and when one that serves HTTP gets SIGTERM,
    /// which then is killed. Default: 2s.
    #[serde(default = "default_stop_grace")]
    pub stop_grace: Window,
    /// Compute resources of the container that runs the program. Absent: the defaults of the runtime namespace apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Returns the rules on an object with the fields of a [`Container`].
pub(super) fn container_rules() -> [(String, String); 2] {
    [duration_within("startTimeout", limits::START_TIMEOUT), duration_within("stopGrace", limits::STOP_GRACE)]
}

const fn default_start_timeout() -> Window {
    Window::from_secs(60)
}

const fn default_stop_grace() -> Window {
    Window::from_secs(2)
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.value) != has(self.valueFrom)", "exactly one of value and valueFrom must be set; remove one or add one"),
])))]
pub struct EnvVar {
    /// Name of the variable: letters, digits and underscores, not beginning with a digit. At most 128 characters.
    #[schemars(length(min = 1, max = 128), regex(pattern = VARIABLE))]
    pub name: String,
    /// Value of the variable, at most 4096 characters, without U+0000. Do not put secrets here: everyone who can read this
    /// object can read them; use `valueFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = VALUE.pattern))]
    pub value: Option<String>,
    /// Where the value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where the value of an environment variable comes from: a key of a Secret or of a ConfigMap in the server's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.secretKeyRef) != has(self.configMapKeyRef)", "exactly one of secretKeyRef and configMapKeyRef must be set; remove one or add one"),
])))]
pub struct EnvSource {
    /// A key of a Secret. The Secret must have the label `mcp-fleet.dev/server.NAME`, where NAME is the server's name, with an
    /// empty value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

impl EnvSource {
    /// Whether a program runs without the variable if there is no value.
    pub fn is_optional(&self) -> bool {
        self.secret_key_ref.iter().chain(&self.config_map_key_ref).all(|key| key.optional)
    }
}

/// A key of a Secret or ConfigMap in the server's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the Secret or ConfigMap, at most 128 characters.
    #[schemars(length(min = 1, max = 128), regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
    /// Whether the program runs without the variable while there is no such object, or no such key in it. A Secret that there is,
    /// but that the server may not have, is an error all the same. Must not be set for PATH, HOME and TMPDIR, which have defaults.
    /// Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A Secret or ConfigMap in the server's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceRef {
    /// Name of the Secret or ConfigMap, at most 128 characters.
    #[schemars(length(min = 1, max = 128), regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// Whether the program runs without it while there is no such object, and without the `items` that are not in it. A Secret that
    /// there is, but that the server may not have, is an error all the same. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A Secret or ConfigMap whose keys become environment variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    one_source(),
])))]
pub struct EnvFrom {
    /// What the name of each variable begins with, before the key. At most 64 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64), regex(pattern = "^([A-Za-z_][A-Za-z0-9_]*)?$"))]
    pub prefix: String,
    /// A Secret. It must have the label `mcp-fleet.dev/server.NAME`, where NAME is the server's name, with an empty value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SourceRef>,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<SourceRef>,
}

impl EnvFrom {
    /// Whether a program runs without it if there is no such object.
    pub fn is_optional(&self) -> bool {
        are_optional(self.secret_ref.as_ref(), self.config_map_ref.as_ref())
    }
}

/// A Secret or ConfigMap that the program can read as files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    one_source(),
    normalised("files"),
    cel("!['/mcp-fleet', '/proc', '/sys', '/dev', '/tmp', '/run', '/var/run'].exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/')) && !['/etc', '/usr', '/bin', '/sbin', '/lib', '/lib64', '/var', '/home', '/root'].exists(p, self.mountPath == p)",
     "files.mountPath must not hide a system directory, and not be in /proc, /sys, /dev, /tmp, /run or /mcp-fleet; use a directory of its own such as /etc/my-server"),
])))]
pub struct Files {
    /// Absolute path of the directory with the files. It hides what the image has there. It must not overlap another path of
    /// `files` or `scratch`, or the workspace.
    #[schemars(length(min = 2, max = 256), regex(pattern = PATH))]
    pub mount_path: String,
    /// A Secret. It must have the label `mcp-fleet.dev/server.NAME`, where NAME is the server's name, with an empty value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SourceRef>,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<SourceRef>,
    /// The keys that are files, at most 64. Absent: all of them, each under its own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key"]))]
    pub items: Vec<KeyToPath>,
}

impl Files {
    /// Whether a program runs without it if there is no such object.
    pub fn is_optional(&self) -> bool {
        are_optional(self.secret_ref.as_ref(), self.config_map_ref.as_ref())
    }
}

/// A key that is a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyToPath {
    /// The key.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
    /// Name of the file in the directory: letters, digits, dots, dashes and underscores, not beginning with two dots.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^(\.?[-_a-zA-Z0-9])[-._a-zA-Z0-9]*$"))]
    pub path: String,
}

/// What happens when configuration changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnChange {
    /// The pods are replaced.
    #[default]
    Restart,
    /// The pods go on.
    Ignore,
}

/// A directory for temporary data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    normalised("scratch"),
    size_within("scratch.sizeLimit", limits::SCRATCH_SIZE),
    cel("self.mountPath == '/tmp' || !['/mcp-fleet', '/proc', '/sys', '/dev', '/etc', '/tmp', '/var/run', '/run', '/bin', '/sbin', '/lib', '/lib64', '/usr'].exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/'))",
     "scratch.mountPath must be /tmp itself, or not be in a system directory or in /mcp-fleet; use a separate directory such as /var/cache/my-server"),
])))]
pub struct Scratch {
    /// Absolute path of the directory. It hides what the image has there. It must not overlap another path of `files` or
    /// `scratch`, or the workspace. /tmp, which every program has with 256Mi, can be listed to give it another size.
    #[schemars(length(min = 2, max = 256), regex(pattern = PATH))]
    pub mount_path: String,
    /// How much data it may hold: a whole number of bytes from 1Mi to 1024Gi. On disk, a pod that has more is evicted and replaced.
    /// In memory, more cannot be written. Without `resources.limits` on `ephemeral-storage`, or on `memory`, the container may have as
    /// much more of that.
    pub size_limit: Bytes,
    /// Where the data is. Disk: on the node's disk. Memory: in memory, which counts as the container's own; a `resources.limits` on
    /// `memory` must be more than all such directories may hold. Default: Disk.
    #[serde(default, skip_serializing_if = "Medium::is_disk")]
    pub medium: Medium,
    /// Whether the program may execute files that it wrote there. Default: Deny.
    #[serde(default)]
    pub execute: Execution,
}

/// Where data is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Medium {
    /// On the node's disk.
    #[default]
    Disk,
    /// In memory.
    Memory,
}

impl Medium {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    const fn is_disk(&self) -> bool {
        matches!(self, Self::Disk)
    }
}

/// Whether files may be executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Execution {
    /// They may not.
    #[default]
    Deny,
    /// They may.
    Allow,
}

/// Whether a program runs without the one of these that is named.
fn are_optional(secret: Option<&SourceRef>, config_map: Option<&SourceRef>) -> bool {
    secret.into_iter().chain(config_map).all(|source| source.optional)
}

/// Returns the rule that a Secret or a `ConfigMap` is named.
fn one_source() -> (String, String) {
    cel(
        "has(self.secretRef) != has(self.configMapRef)",
        "exactly one of secretRef and configMapRef must be set; remove one or add one",
    )
}

/// Returns the rule that the `mountPath` of an item of a list of directories is normalised.
fn normalised(list: &str) -> (String, String) {
    (
        "!self.mountPath.contains('//') && !self.mountPath.matches('/[.]{1,2}(/|$)') && !self.mountPath.endsWith('/')"
            .to_owned(),
        format!("{list}.mountPath must be normalised: no `//`, no `.` or `..`, no slash at the end"),
    )
}

/// Compute resources of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Upper limits of the container's resources, at most 8: `cpu`, `memory`, `ephemeral-storage`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, QuantitySchema>", extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
    /// Resources that the scheduler reserves for the container, at most 8. Default: the same as limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, QuantitySchema>", extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
}
