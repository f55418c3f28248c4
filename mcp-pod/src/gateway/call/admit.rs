//! The decision about a call, and the resources that it takes.

use std::sync::Arc;

use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::engine::ToolAccess;
use mcp_fleet_policy::json::Value;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::rules::PathArgument;

use super::settle::Resources;
use super::watch::{Looping, Watched, watch};
use crate::gateway::policy::ToolGrant;
use crate::gateway::state::{Admission, NoHome, RequestContext};

/// Why a call is not forwarded.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// Answered as if the tool did not exist.
    UnknownTool(Reason),
    /// Answered with a result that says why.
    Denied(Denial),
    /// Denied because the call continues a loop.
    Looping(Looping),
    /// Another gateway has to decide.
    Elsewhere,
}

impl From<Denial> for NotAdmitted {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<NoHome> for NotAdmitted {
    fn from(no_home: NoHome) -> Self {
        match no_home {
            NoHome::Elsewhere => Self::Elsewhere,
            NoHome::Denied(denial) => Self::Denied(denial),
        }
    }
}

impl From<Looping> for NotAdmitted {
    fn from(looping: Looping) -> Self {
        Self::Looping(looping)
    }
}

/// A call that the policy allows.
#[derive(Debug)]
pub(super) struct Admitted<'p, 'v> {
    pub(super) grant: Arc<ToolGrant>,
    /// The paths among the arguments.
    pub(super) paths: Vec<PathArgument<'p, 'v>>,
    pub(super) resources: Resources,
    /// Absent if loops are not observed.
    pub(super) watched: Option<Watched>,
    /// What has to hold when the call is handed to its server.
    pub(super) admission: Admission,
}

/// Takes a call through every stage before it is forwarded.
pub(super) async fn admit<'p, 'v>(
    context: &RequestContext<'p>,
    tool: &str,
    arguments: Option<&'v Value<'_>>,
) -> Result<Admitted<'p, 'v>, NotAdmitted> {
    let access = authorise(context, tool)?;
    if let Some(unreadable) = context.unreadable {
        return Err(unreadable.denial(|argument| access.declares(argument)).into());
    }
    let paths = access.admit(arguments)?.paths;
    let home = context.enter_home().await?;
    let watched = watch(context, access, arguments)?;
    let (grant, resources) = govern(context, access).await?;
    Ok(Admitted { grant, paths, resources, watched, admission: context.admission(access.class(), home) })
}

fn authorise<'p>(context: &RequestContext<'p>, tool: &str) -> Result<ToolAccess<'p>, NotAdmitted> {
    // A suspended caller learns that it is suspended, and nothing about tools.
    if let Some(reason) = context.caller.suspended {
        return Err(Denial::new(reason).into());
    }
    context.state.check_kill_switch()?;
    let access = context.view.tool(tool).map_err(NotAdmitted::UnknownTool)?;
    context.check_in_force(access.class()).map_err(Denial::new)?;
    Ok(access)
}

/// Reserves audit lines, room among the calls in flight, and the price.
async fn govern(
    context: &RequestContext<'_>,
    access: ToolAccess<'_>,
) -> Result<(Arc<ToolGrant>, Resources), NotAdmitted> {
    let state = context.state;
    let principal = context.caller.principal;
    let (uid, server) = (&principal.model().uid, access.server());
    state.stuck.check(state.tick(), uid, &server.uid, &access.tool().name)?;
    let admit = |counts| state.governor.admit_as(state.tick(), uid, &server.uid, counts);
    let permit = state.take_shared(Some(&server.uid), admit).await?;
    // After the wait for a share, in which nothing that others need may be held.
    let Ok(slots) = state.audit.reserve_call(access.class()).await else {
        permit.refund();
        return Err(Denial::new(Reason::AuditUnavailable).into());
    };
    let grant = context.policy.tool_grant(&state.metrics, &state.breakers, principal, access);
    let (pass, changes) = grant.breaker.admit(state.tick());
    state.metrics.breakers.count(&grant.subject, changes);
    let pass = match pass {
        Ok(pass) => pass,
        Err(denial) => {
            permit.refund();
            return Err(denial.into());
        }
    };
    match state.leases.reserve(&grant.priced_call(), &grant.budgets).await {
        Ok(reservation) => {
            let resources = Resources { active: state.enter(), slots, permit: Some(permit), reservation, pass };
            Ok((grant, resources))
        }
        Err(denial) => {
            // A call that cannot be paid does not count against the rate as well.
            permit.refund();
            Err(denial.into())
        }
    }
}
