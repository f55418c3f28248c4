//! Whether Kubernetes counts what the quota of the tenant's namespace limits. Pure.
//!
//! The quota controller of Kubernetes discovers new kinds every 30 s, and recalculates a quota only when the quota changes
//! or every five minutes. A quota that was created before the controller knew our kinds refuses every object of them
//! meanwhile ("status unknown for quota"). Such a quota is created again once the controller has had the time to discover
//! our kinds.

use std::time::Duration;

use jiff::Timestamp;
use mcp_fleet_crds::tenant::DEFAULT_COUNTS;
use serde_json::Value;

/// Age at which a quota is older than one discovery interval of the quota controller, which then knows our kinds.
const DISCOVERY_TIME: Duration = Duration::from_secs(35);
/// Pause between checks whether a quota is counted.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What to do about a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the quota is counted, or there is none.
    Nothing,
    /// Wait: the quota controller may not know our kinds yet.
    Wait(Duration),
    /// Delete the quota and create it again: the controller knows our kinds, but will not count this quota by itself.
    Recreate,
}

/// Decides what to do about a quota: the live object, or null if there is none.
pub(super) fn next(quota: &Value, now: Timestamp) -> Next {
    if uncounted(quota).is_empty() {
        return Next::Nothing;
    }
    let created = quota["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let age = now.as_second().saturating_sub(created.unwrap_or(now).as_second());
    if u64::try_from(age).is_ok_and(|age| age >= DISCOVERY_TIME.as_secs()) {
        Next::Recreate
    } else {
        Next::Wait(CHECK_INTERVAL)
    }
}

/// Returns the counts of our kinds that a quota limits but has no status for. Admission refuses every object that they
/// count.
pub(super) fn uncounted(quota: &Value) -> Vec<&str> {
    let limits = quota["spec"]["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let has = |part: &str, name: &str| quota["status"][part].get(name).is_some();
    limits.filter(|name| counts_a_kind(name) && !(has("hard", name) && has("used", name))).collect()
}

/// Whether a limit counts objects of a kind that exists. Limits on other names are never counted and refuse nothing.
fn counts_a_kind(name: &str) -> bool {
    DEFAULT_COUNTS.iter().any(|(kind, _)| *kind == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SERVERS: &str = "count/mcpservers.mcp-fleet.dev";
    const SCOPES: &str = "count/mcpscopes.mcp-fleet.dev";

    fn quota(used: &Value) -> Value {
        json!({
            "metadata": {"creationTimestamp": "2026-11-01T00:00:00Z"},
            "spec": {"hard": {SERVERS: "5", SCOPES: "5", "count/mcpthings.mcp-fleet.dev": "5"}},
            "status": {"hard": {SERVERS: "5", SCOPES: "5"}, "used": used},
        })
    }

    fn at(quota: &Value, time: &str) -> Next {
        next(quota, time.parse().unwrap())
    }

    #[test]
    fn a_quota_that_is_counted_is_left_alone() {
        assert_eq!(at(&quota(&json!({SERVERS: "0", SCOPES: "1"})), "2026-11-01T01:00:00Z"), Next::Nothing);
        assert_eq!(at(&Value::Null, "2026-11-01T01:00:00Z"), Next::Nothing);
    }

    #[test]
    fn an_uncounted_quota_is_recreated_once_the_controller_knows_our_kinds() {
        let overlooked = quota(&json!({SERVERS: "0"}));
        assert_eq!(uncounted(&overlooked), [SCOPES]);
        assert_eq!(at(&overlooked, "2026-11-01T00:00:34Z"), Next::Wait(CHECK_INTERVAL));
        assert_eq!(at(&overlooked, "2026-11-01T00:00:35Z"), Next::Recreate);
    }
}
