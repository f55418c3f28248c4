//! Breakers and reports that a person clears.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_fleet_policy::model::{Principal, TenantPolicy};
use tracing::{info, warn};

use super::State;
use crate::gateway::audit::{Line, Name, Subject};

/// Clears the own breakers and the reports of the principals for which a person asked that since the previous policy.
pub(super) fn clear(state: &Arc<State>, previous: &TenantPolicy, policy: &TenantPolicy) {
    let known: HashMap<&str, Option<i64>> =
        previous.principals.iter().map(|principal| (principal.uid.as_str(), principal.breakers_cleared)).collect();
    for principal in policy.principals.iter().filter(|principal| principal.breakers_cleared.is_some()) {
        if known.get(principal.uid.as_str()).is_some_and(|before| *before != principal.breakers_cleared) {
            clear_principal(state, policy, principal);
        }
    }
}

fn clear_principal(state: &Arc<State>, policy: &TenantPolicy, principal: &Principal) {
    let Principal { namespace, name, uid, .. } = principal;
    let reported = state.stuck.clear(uid);
    let mut breakers = 0_u32;
    state.breakers.clear(uid, |tool, changes| {
        breakers += 1;
        state.metrics.breakers.cleared(&policy.tenant, tool, changes);
    });
    let label = format!("{namespace}/{name}");
    info!(
        tenant = policy.tenant,
        principal = label,
        reported,
        breakers,
        "a person cleared the breakers of a principal"
    );
    let subject = Subject {
        tenant: policy.tenant.clone().into(),
        generation: policy.generation,
        principal: label.into(),
        principal_uid: uid.clone().into(),
        server: Name::Known("".into()),
        tool: Name::Known("".into()),
        class: None,
        method: Name::Known("".into()),
    };
    let state = Arc::clone(state);
    let write = async move {
        match state.audit.reserve().await {
            Ok(slot) => slot.write(&Line::cleared(), &subject),
            Err(error) => warn!(%error, "failed to audit that breakers were cleared"),
        }
    };
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(write);
    }
}
