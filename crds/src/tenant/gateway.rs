//! Settings of the tenant's gateway.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mcp_fleet_policy::units::{Bytes, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::integer;
use crate::pod::PodSettings;
use crate::quantity::QuantitySchema;
use crate::schema::{cel, rules, size_within};

/// Settings of the tenant's gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Number of gateway pods, 1 to 16. The limits of principals, servers and the tenant hold for all of them together. With
    /// more than one, calls go on while a pod is replaced or lost. `kubectl scale` changes it too. Default: 1.
    #[serde(default = "default_replicas", deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: u32,
    /// Compute resources of each gateway pod.
    #[serde(default)]
    pub resources: GatewayResources,
    /// Where the gateway pods run, and what marks them. With `topologySpreadConstraints`, those replace the default: spread over
    /// nodes and zones as far as possible.
    #[serde(default, skip_serializing_if = "PodSettings::is_empty")]
    pub pod: PodSettings,
}

const fn default_replicas() -> u32 {
    1
}

impl Default for Gateway {
    fn default() -> Self {
        Self { replicas: default_replicas(), resources: GatewayResources::default(), pod: PodSettings::default() }
    }
}

/// Compute resources of a gateway pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    cel("quantity(self.requests.memory).compareTo(quantity(self.limits.memory)) <= 0",
        "gateway.resources.requests.memory must not exceed gateway.resources.limits.memory"),
    cel("quantity(string(self.requests.cpu)).compareTo(quantity(string(self.limits.cpu))) <= 0",
        "gateway.resources.requests.cpu must not exceed gateway.resources.limits.cpu"),
])))]
pub struct GatewayResources {
    /// What the scheduler reserves for the pod.
    #[serde(default)]
    pub requests: GatewayRequests,
    /// What the pod may use at most.
    #[serde(default)]
    pub limits: GatewayLimits,
}

/// What the scheduler reserves for a gateway pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    size_within("gateway.resources.requests.memory", limits::GATEWAY_MEMORY_REQUEST),
])))]
pub struct GatewayRequests {
    /// Processor time: a quantity such as 500m. Default: 50m.
    #[serde(default = "default_cpu_request")]
    #[schemars(with = "QuantitySchema")]
    pub cpu: Quantity,
    /// Memory: a whole number of bytes from 16Mi to 64Gi. Default: 32Mi.
    #[serde(default = "default_memory_request")]
    pub memory: Bytes,
}

/// What a gateway pod may use at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    size_within("gateway.resources.limits.memory", limits::GATEWAY_MEMORY),
    cel("quantity(string(self.cpu)).compareTo(quantity('100m')) >= 0",
        "gateway.resources.limits.cpu must be at least 100m, or the gateway could not answer its probes in time"),
])))]
pub struct GatewayLimits {
    /// Processor time: a quantity of at least 100m. Default: 1.
    #[serde(default = "default_cpu_limit")]
    #[schemars(with = "QuantitySchema")]
    pub cpu: Quantity,
    /// Memory: a whole number of bytes from 64Mi to 64Gi. Half of it is what connections, requests and answers may use
    /// together, so it decides how many there can be at a time and how large they can be; calls beyond that are refused with
    /// `gateway_busy` or `concurrency_limited`. Default: 256Mi.
    #[serde(default = "default_memory_limit")]
    pub memory: Bytes,
}

fn default_cpu_request() -> Quantity {
    Quantity("50m".into())
}

const fn default_memory_request() -> Bytes {
    Bytes::new(32 << 20)
}

fn default_cpu_limit() -> Quantity {
    Quantity("1".into())
}

const fn default_memory_limit() -> Bytes {
    Bytes::new(256 << 20)
}

impl Default for GatewayRequests {
    fn default() -> Self {
        Self { cpu: default_cpu_request(), memory: default_memory_request() }
    }
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self { cpu: default_cpu_limit(), memory: default_memory_limit() }
    }
}
