//! Whether Kubernetes counts what the quota of the tenant's namespace limits. Pure.
//!
//! Its quota controller learns of new kinds every 30 s, and looks at a quota again only when the quota changes, or every
//! five minutes. One that was made before it knew our kinds refuses every object of them meanwhile ("status unknown for
//! quota"). So it is made anew once the controller has had the time to learn.

use std::time::Duration;

use jiff::Timestamp;
use kube::Resource;
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer};
use serde_json::Value;

/// After this time the quota controller has looked for new kinds since the quota was made.
const LEARNT: Duration = Duration::from_secs(35);
/// How soon to look again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What to do about a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it is counted, or there is none.
    Rest,
    /// Wait: the controller may not know our kinds yet.
    Wait(Duration),
    /// Delete it, to make it anew: the controller knows the kinds, and will not look by itself.
    MakeAnew,
}

/// Decides. `quota` is the live object, or null.
pub(super) fn next(quota: &Value, now: Timestamp) -> Next {
    if uncounted(quota).is_empty() {
        return Next::Rest;
    }
    let made: Timestamp = quota["metadata"]["creationTimestamp"].as_str().and_then(|it| it.parse().ok()).unwrap_or(now);
    let age = now.as_second().saturating_sub(made.as_second());
    if u64::try_from(age).is_ok_and(|age| age >= LEARNT.as_secs()) { Next::MakeAnew } else { Next::Wait(LOOK_AGAIN) }
}

/// The counts of our kinds that a quota limits and has no status for: admission refuses every object that they count.
pub(super) fn uncounted(quota: &Value) -> Vec<&str> {
    let limits = quota["spec"]["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let has = |part: &str, name: &str| quota["status"][part].get(name).is_some();
    limits.filter(|name| counts_a_kind(name) && !(has("hard", name) && has("used", name))).collect()
}

/// Whether the name counts a kind that there is: others are never counted, and refuse nothing.
fn counts_a_kind(name: &str) -> bool {
    fn of<K: Resource<DynamicType = ()>>() -> String {
        format!("count/{}.{}", K::plural(&()), K::group(&()))
    }
    [of::<MCPServer>(), of::<MCPScope>(), of::<MCPPrincipal>(), of::<MCPBudget>()].iter().any(|kind| kind == name)
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
        assert_eq!(at(&quota(&json!({SERVERS: "0", SCOPES: "1"})), "2026-11-01T01:00:00Z"), Next::Rest);
        assert_eq!(at(&Value::Null, "2026-11-01T01:00:00Z"), Next::Rest);
    }

    #[test]
    fn a_quota_that_was_overlooked_is_made_anew_but_not_before_the_controller_could_have_learnt() {
        let overlooked = quota(&json!({SERVERS: "0"}));
        assert_eq!(uncounted(&overlooked), [SCOPES]);
        assert_eq!(at(&overlooked, "2026-11-01T00:00:34Z"), Next::Wait(LOOK_AGAIN));
        assert_eq!(at(&overlooked, "2026-11-01T00:00:35Z"), Next::MakeAnew);
    }
}
