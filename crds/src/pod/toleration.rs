//! Taints of nodes that pods tolerate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::marks::{KEY, MAX_KEY, short_domain};
use crate::integer;
use crate::schema::{cel, rules};

/// Taints of nodes that pods tolerate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    cel("self.operator != 'Exists' || !has(self.value)", "a toleration with operator Exists has no value; remove value, or use Equal"),
    cel("has(self.key) || self.operator == 'Exists'", "a toleration without key matches all taints and needs operator Exists; set key or operator"),
    cel("!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'", "tolerationSeconds needs effect NoExecute; set it, or remove tolerationSeconds"),
    short_domain("key"),
])))]
pub struct Toleration {
    /// Key of the taints. Absent: all taints, with `operator` Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_KEY), regex(pattern = KEY))]
    pub key: Option<String>,
    /// How the value of a taint is compared: Equal or Exists. Default: Equal.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// Value of the taints. Absent: the empty value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub value: Option<String>,
    /// Effect of the taints: NoSchedule, PreferNoSchedule or NoExecute. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How many seconds a pod stays on a node that gets such a taint with the effect NoExecute, 0 to 31536000. Absent: for ever.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<u32>,
}

/// How the value of a taint is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// It is the value of the toleration.
    #[default]
    Equal,
    /// It can be any.
    Exists,
}

/// Effect of a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New pods are not scheduled on the node.
    NoSchedule,
    /// New pods are scheduled on other nodes, if there are some.
    PreferNoSchedule,
    /// Pods that run on the node are evicted too.
    NoExecute,
}

impl Toleration {
    /// Whether this tolerates everything that `other` tolerates, for as long.
    pub fn covers(&self, other: &Self) -> bool {
        let Self { key, operator, value, effect, toleration_seconds } = self;
        let matches_key = key.is_none() && *operator == TolerationOperator::Exists || *key == other.key;
        let matches_value = match operator {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal => other.operator == TolerationOperator::Equal && *value == other.value,
        };
        let matches_effect = effect.is_none() || *effect == other.effect;
        let is_as_long = match (toleration_seconds, other.toleration_seconds) {
            (None, _) => true,
            (Some(most), Some(seconds)) => seconds <= *most,
            (Some(_), None) => false,
        };
        matches_key && matches_value && matches_effect && is_as_long
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn covers(one: Value, other: Value) -> bool {
        let [one, other] = [one, other].map(|it| serde_json::from_value::<Toleration>(it).unwrap());
        one.covers(&other)
    }

    #[test]
    fn a_toleration_covers_what_is_narrower() {
        let all = || json!({"operator": "Exists"});
        let pool = || json!({"key": "pool", "value": "gpu"});
        let any_pool = || json!({"key": "pool", "operator": "Exists"});
        assert!(covers(all(), all()) && covers(all(), pool()) && covers(any_pool(), pool()) && covers(pool(), pool()));
        assert!(!covers(pool(), any_pool()) && !covers(any_pool(), all()) && !covers(pool(), all()));
        assert!(!covers(pool(), json!({"key": "pool", "value": "db"})));
        assert!(!covers(any_pool(), json!({"key": "other", "value": "gpu"})));
        let effect = |effect: &str| json!({"key": "pool", "value": "gpu", "effect": effect});
        assert!(covers(pool(), effect("NoExecute")) && covers(effect("NoExecute"), effect("NoExecute")));
        assert!(!covers(effect("NoExecute"), pool()) && !covers(effect("NoExecute"), effect("NoSchedule")));
        let seconds = |seconds: u32| json!({"key": "pool", "effect": "NoExecute", "tolerationSeconds": seconds});
        let forever = || json!({"key": "pool", "effect": "NoExecute"});
        assert!(covers(seconds(60), seconds(60)) && covers(forever(), seconds(60)));
        assert!(!covers(seconds(60), seconds(61)) && !covers(seconds(60), forever()));
    }
}
