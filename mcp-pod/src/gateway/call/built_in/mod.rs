//! Calls of the built-in tools, which the gateway answers itself.
//!
//! They pass the same stages as other calls, except that they need no grant and are never in flight: the policy has to be
//! fresh, the arguments are checked, the rates apply, and each call has an audit line.

mod report;
mod status;

use http::Response;
use mcp_fleet_policy::built_in::BuiltIn;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::json::{Value, write_str};
use mcp_fleet_policy::reason::Reason;

use super::admit::NotAdmitted;
use super::{digest, reject};
use crate::gateway::audit::{LineSlot, RequestRecord};
use crate::gateway::request::{Id, Revision};
use crate::gateway::respond::{Body, result};
use crate::gateway::state::{HomeVersion, RequestContext, Unanswered};

/// The result of a built-in tool.
#[derive(Debug)]
struct Answer {
    /// Text for a model.
    text: String,
    /// The same as data.
    data: serde_json::Value,
}

/// Answers a call of a built-in tool.
pub(super) async fn call(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    revision: Revision,
    id: &Id,
    tool: BuiltIn,
    arguments: Option<&Value<'_>>,
) -> Result<Response<Body>, Unanswered> {
    record.arguments = digest(context, arguments);
    let (slot, home) = match admit(context, tool, arguments).await {
        Ok(admitted) => admitted,
        Err(not_admitted) => return Err(reject(not_admitted, id, revision, tool.as_str())),
    };
    let (state, principal) = (context.state, &context.caller.principal.model().uid);
    let take = |counts| {
        // The call may have waited for its home, for its audit line, or for a share of the tenant's rate.
        let is_home = state.homes.is_current(home);
        if !is_home || context.is_outdated() || state.is_stopped() || context.check_in_force(Class::Read).is_err() {
            return Ok(Err(Unanswered::Outdated));
        }
        state.governor.admit_built_in(state.tick(), principal, counts).map(Ok)
    };
    let admitted = match state.take_shared(None, take).await {
        Ok(taken) => Ok(taken?),
        Err(denial) => Err(denial),
    };
    record.admitted = admitted.is_ok();
    let answered = admitted.and_then(|()| match tool {
        BuiltIn::FleetStatus => Ok(status::status(context)),
        BuiltIn::FleetReportStuck => report::report(context, arguments),
    });
    let Answer { text, data } =
        answered.map_err(|denial| reject(NotAdmitted::Denied(denial), id, revision, tool.as_str()))?;
    state.record_allowed(record, context.policy, slot);
    let mut rest = Vec::new();
    write_str(&text, &mut rest);
    rest.extend_from_slice(b"}],\"isError\":false,\"structuredContent\":");
    rest.extend_from_slice(data.to_string().as_bytes());
    rest.push(b'}');
    let start: &[u8] = if revision.is_legacy() { b"{" } else { b"{\"resultType\":\"complete\"," };
    Ok(result(id, &[start, b"\"content\":[{\"type\":\"text\",\"text\":", &rest]))
}

/// Checks everything but the rates, and reserves the audit line.
async fn admit(
    context: &RequestContext<'_>,
    tool: BuiltIn,
    arguments: Option<&Value<'_>>,
) -> Result<(LineSlot, HomeVersion), NotAdmitted> {
    context.state.check_kill_switch()?;
    context.check_in_force(Class::Read).map_err(Denial::new)?;
    if let Some(unreadable) = context.unreadable {
        return Err(unreadable.denial(|argument| tool.declares(argument)).into());
    }
    tool.admit(arguments)?;
    let home = context.enter_home().await?;
    let slot = context.state.audit.reserve().await.map_err(|_| Denial::new(Reason::AuditUnavailable))?;
    Ok((slot, home))
}
