//! The public name of a tenant's gateway, as one step of the tenant's reconcile: the certificate is read, copied to where
//! the gateway mounts it, and the name is taken into use or given up. Start at [`apply`].

mod certificate;
mod copy;
mod decide;

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use mcp_fleet_core::public_name::{Names, origin};
use mcp_fleet_core::shared_state::verdict::TenantState;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, is_true};

use super::validate::Tenant;
use crate::context::Context;
use crate::controllers::error::ReconcileError;

use certificate::Problem;
use decide::{Situation, decide};

pub(super) use copy::SECRET;
pub(super) use decide::Decision;

/// How often the certificate is read again while the name is in use.
const READ_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is read again while the name cannot be used. Nothing else tells that somebody stored it.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// Applies the public name of a tenant. Sends no request for a tenant that has none.
pub(super) async fn apply(
    ctx: &Context,
    object: &MCPTenant,
    tenant: &Tenant,
    (state, warming_up): (&TenantState, bool),
    now: Timestamp,
) -> Result<Decision, ReconcileError> {
    let names = Names::of(object);
    let holder = names.wanted.and_then(|wanted| ctx.cache.holder_of_hostname(object, wanted));
    let gateways = names.wanted.map(|wanted| state.name_state(wanted, now.as_second()));
    let was_ready =
        object.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::EndpointReady));
    let mut situation = Situation {
        names,
        holder: holder.map(|holder| holder.name_any()),
        problem: None,
        gateways: gateways.filter(|_| !warming_up),
        was_ready,
        now,
    };
    if let Some(wanted) = names.wanted.filter(|_| situation.can_use_wanted()) {
        match certificate::read(ctx, object, wanted, now).await {
            Err(problem) => situation.problem = Some(problem),
            Ok(pair) => match copy::write(ctx, tenant, &pair).await {
                Err(error) if error.is_conflict() => return Err(error),
                // Calls do not depend on the public name, so it alone is not ready.
                Err(error) => {
                    situation.problem = Some(Problem { reason: Reason::Failed, message: error.chain() });
                }
                Ok(()) => {}
            },
        }
        if !state.audiences.contains_key(&origin(wanted)) {
            // Another tenant may have given the name up, which does not change this one.
            ctx.shared_state.request_compilation(&tenant.id.uid);
        }
    }
    let decision = decide(&situation);
    if names.wanted.is_none() && decision.public_name.is_none() && decision.former_urls.is_empty() {
        copy::remove(ctx, tenant).await?;
    }
    Ok(decision)
}
