//! The contents of the kill switch's `ConfigMap`, and what they mean. Pure.

use k8s_openapi::api::core::v1::ConfigMap;
use mcp_fleet_policy::kill_switch::shown_reason;

/// Key whose value is `true` or `false`.
const STOP: &str = "stop";
/// Key of the reason that agents and people see.
const REASON: &str = "reason";

/// State of the kill switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// Calls are allowed.
    #[default]
    Off,
    /// All tool calls are refused.
    On {
        /// Why; empty if no reason is given.
        reason: String,
        /// What is wrong with the `ConfigMap`, whose contents then stop all calls whatever they say.
        problem: Option<&'static str>,
    },
}

impl Switch {
    /// Reads the switch. Without a `ConfigMap` it is off. One that is not exactly as documented stops all calls: whoever
    /// writes it in a hurry wants to stop something.
    pub fn of(config_map: Option<&ConfigMap>) -> Self {
        let Some(ConfigMap { data, binary_data, .. }) = config_map else { return Self::Off };
        let value = |key: &str| data.as_ref().and_then(|data| data.get(key)).map(|value| value.trim());
        let unknown = data.iter().flatten().any(|(key, _)| key != STOP && key != REASON)
            || binary_data.as_ref().is_some_and(|data| !data.is_empty());
        let problem = match value(STOP) {
            _ if unknown => Some("it has keys other than `stop` and `reason`"),
            Some("false") => return Self::Off,
            Some("true") => None,
            Some(_) => Some("`stop` is neither `true` nor `false`"),
            None => Some("it has no key `stop`"),
        };
        Self::On { reason: shown_reason(value(REASON).unwrap_or_default()), problem }
    }

    /// Returns whether all tool calls are refused.
    pub fn is_on(&self) -> bool {
        *self != Self::Off
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn switch(data: Value) -> Switch {
        Switch::of(Some(&serde_json::from_value(data).unwrap()))
    }

    fn on(reason: &str) -> Switch {
        Switch::On { reason: reason.into(), problem: None }
    }

    #[test]
    fn true_stops_and_false_or_no_object_does_not() {
        assert_eq!(Switch::of(None), Switch::Off);
        assert_eq!(switch(json!({"data": {"stop": "false", "reason": "kept in Git"}})), Switch::Off);
        assert_eq!(switch(json!({"data": {"stop": "true"}})), on(""));
        // As `kubectl create configmap --from-file` writes it.
        assert_eq!(switch(json!({"data": {"stop": "true\n", "reason": "leak\n"}})), on("leak"));
        assert_eq!(
            switch(json!({"data": {"stop": "true", "reason": "a\nb \u{1b}[1m\"c\""}})),
            on("a b \u{fffd}[1m'c'")
        );
    }

    #[test]
    fn anything_else_stops_and_has_a_problem() {
        for data in [
            json!({}),
            json!({"data": {}}),
            json!({"data": {"stop": ""}}),
            json!({"data": {"stop": "False"}}),
            json!({"data": {"stop": "no"}}),
            json!({"data": {"reason": "leak"}}),
            json!({"data": {"stop": "false", "tenants": "acme"}}),
            json!({"data": {"stop": "false"}, "binaryData": {"stop": "dHJ1ZQ=="}}),
        ] {
            let switch = switch(data.clone());
            assert!(matches!(switch, Switch::On { problem: Some(_), .. }), "{data}: {switch:?}");
        }
    }
}
