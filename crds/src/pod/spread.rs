//! How the pods of one workload are spread over the cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::marks::{KEY, MAX_KEY, short_domain};
use crate::integer;
use crate::schema::{cel, rules};

/// How the pods of one workload are spread over nodes with different values of a label. There is no `labelSelector`: the pods
/// of the same workload count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    cel("!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'", "minDomains needs whenUnsatisfiable DoNotSchedule; set it, or remove minDomains"),
    short_domain("topologyKey"),
])))]
pub struct TopologySpread {
    /// Key of the label of nodes, such as `topology.kubernetes.io/zone` or `kubernetes.io/hostname`.
    #[schemars(length(min = 1, max = MAX_KEY), regex(pattern = KEY))]
    pub topology_key: String,
    /// By how many pods two values may differ, 1 to 100. Default: 1.
    #[serde(default = "default_skew", deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: u32,
    /// What happens to a pod for which that is impossible. DoNotSchedule: it waits. ScheduleAnyway: it is scheduled where it
    /// makes the least difference.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// How many different values there must be, 1 to 100; as long as there are fewer, pods wait. With DoNotSchedule only.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub min_domains: Option<u32>,
}

const fn default_skew() -> u32 {
    1
}

/// What happens to a pod that cannot be spread as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// It waits.
    DoNotSchedule,
    /// It is scheduled all the same.
    ScheduleAnyway,
}
