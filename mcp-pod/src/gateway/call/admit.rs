//! The decision about a call, and the resources that it takes.

use std::sync::Arc;

use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::engine::ToolAccess;
use mcp_fleet_policy::json::Value;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::rules::PathArgument;

use super::settle::Resources;
use crate::gateway::policy::ToolGrant;
use crate::gateway::state::RequestContext;

/// Why a call is not forwarded.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// Answered as if the tool did not exist.
    UnknownTool(Reason),
    /// Answered with a result that says why.
    Denied(Denial),
}

impl From<Denial> for NotAdmitted {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// Takes a call through every stage before it is forwarded. Returns the grant that admits it, the paths among its
/// arguments, and the resources that it holds until it is settled.
pub(super) async fn admit<'p, 'v>(
    context: &RequestContext<'p>,
    tool: &str,
    arguments: Option<&'v Value<'_>>,
) -> Result<(Arc<ToolGrant>, Vec<PathArgument<'p, 'v>>, Resources), NotAdmitted> {
    let access = authorise(context, tool)?;
    let admitted = access.admit(arguments)?;
    let (grant, resources) = govern(context, access).await?;
    Ok((grant, admitted.paths, resources))
}

fn authorise<'p>(context: &RequestContext<'p>, tool: &str) -> Result<ToolAccess<'p>, NotAdmitted> {
    // A suspended caller learns that it is suspended, and nothing about tools.
    if let Some(reason) = context.caller.suspended {
        return Err(Denial::new(reason).into());
    }
    let access = context.view.tool(tool).map_err(NotAdmitted::UnknownTool)?;
    context.check_in_force(access.class()).map_err(Denial::new)?;
    Ok(access)
}

/// Reserves an audit line, room among the calls in flight, and the price.
async fn govern(
    context: &RequestContext<'_>,
    access: ToolAccess<'_>,
) -> Result<(Arc<ToolGrant>, Resources), NotAdmitted> {
    let state = context.state;
    let slot = state.audit.reserve().await.map_err(|_| Denial::new(Reason::AuditUnavailable))?;
    let principal = context.caller.principal;
    let permit = state.governor.admit(state.tick(), &principal.model().uid, &access.server().uid)?;
    let grant = context.policy.tool_grant(&state.metrics, principal, access);
    match state.leases.reserve(&grant.priced_call(), &grant.budgets).await {
        Ok(reservation) => {
            let resources = Resources { active: state.enter(), slot, permit, reservation };
            Ok((grant, resources))
        }
        Err(denial) => {
            // A call that cannot be paid does not count against the rate as well.
            permit.refund();
            Err(denial.into())
        }
    }
}
