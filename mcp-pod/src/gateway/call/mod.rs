//! `tools/call`: authorise, validate, govern, reserve, forward.

mod answer;
mod detach;
mod envelope;
mod forward;
mod settle;

use http::{Response, StatusCode};
use mcp_fleet_policy::denial::{Denial, echo};
use mcp_fleet_policy::engine::{Admitted, ToolAccess};
use mcp_fleet_policy::json::{Members, Value};
use mcp_fleet_policy::reason::Reason;

use super::audit::RequestRecord;
use super::request::{CallParams, Id, ParamsError, Revision};
use super::respond::{Body, Failure, Rejection, denied_call, error, result};
use super::state::{LegacySession, RequestContext};
use detach::Detach;
use envelope::{Call, lines, write_arguments};
use forward::{Forward, unreachable};
use settle::{Held, Settlement};

/// Why a call is not forwarded.
#[derive(Debug)]
enum Refusal {
    /// Answered as if there were no such tool.
    Unknown(Reason),
    /// A result that says why.
    Denied(Denial),
}

/// Decides about a call, and has it done.
pub(crate) async fn call(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    revision: Revision,
    id: Id,
    params: Members<'_>,
    session: Option<LegacySession>,
) -> Result<Response<Body>, Rejection> {
    let params = CallParams::read(params)
        .map_err(|ParamsError(text)| Rejection::invalid_params(&id, &format!("Invalid params: {text}")))?;
    let arguments = params.arguments.as_ref();
    let decided = match decide(context, &params.name, arguments) {
        Ok((access, admitted)) => govern(context, access).await.map(|held| (access, admitted, held)),
        Err(refusal) => Err(refusal),
    };
    let (access, admitted, held) = match decided {
        Ok(decided) => decided,
        Err(refusal) => {
            let mut written = Vec::new();
            write_arguments(arguments, &mut written);
            record.arguments = Some(context.policy.argument_key.digest(&written));
            record.tool = Some(params.name.into_owned());
            return Err(refused(refusal, &id, revision, record.tool.as_deref().unwrap_or_default()));
        }
    };
    let grant = context.policy.tool_grant(&context.state.metrics, context.caller.principal, access);
    let progress = params.progress.filter(|_| context.events);
    let call = Call {
        id: record.call,
        paths: &admitted.paths,
        progress: progress.is_some(),
        arguments,
        trace: &params.trace,
        length: context.length,
    };
    let lines = lines(&grant, &call);
    let settlement = Settlement {
        state: context.state.clone(),
        grant,
        revision,
        started: record.started,
        call: record.call,
        arguments: lines.arguments,
        held: Some(held),
    };
    let Some(upstream) = context.policy.upstream(context.view) else {
        return Ok(unreachable(settlement, &id));
    };
    let cancellable = session.map(|session| context.state.legacy_calls.enter(session, id.clone()));
    let forward = Forward { upstream: upstream.clone(), lines: lines.whole, id, progress, cancellable, settlement };
    if revision.is_legacy() {
        // Up to 2025-11-25 a lost connection does not cancel.
        return Ok(Detach::new(forward.run()).await);
    }
    Ok(forward.run().await)
}

/// Authorises and validates: nothing but the policy and the message.
fn decide<'p, 'v>(
    context: &RequestContext<'p>,
    name: &str,
    arguments: Option<&'v Value<'_>>,
) -> Result<(ToolAccess<'p>, Admitted<'p, 'v>), Refusal> {
    // Whoever is suspended learns that, and nothing about tools.
    if let Some(reason) = context.caller.suspended {
        return Err(Refusal::Denied(Denial::new(reason)));
    }
    let access = context.view.tool(name).map_err(Refusal::Unknown)?;
    context.in_force(access.class()).map_err(|reason| Refusal::Denied(Denial::new(reason)))?;
    let admitted = access.admit(arguments).map_err(Refusal::Denied)?;
    Ok((access, admitted))
}

/// Takes what the call needs: a line in the audit trail, a place among the calls in flight, its money.
async fn govern(context: &RequestContext<'_>, access: ToolAccess<'_>) -> Result<Held, Refusal> {
    let state = context.state;
    let slot = state.audit.reserve().await.map_err(|_| Refusal::Denied(Denial::new(Reason::AuditUnavailable)))?;
    let principal = context.caller.principal;
    let now = state.tick();
    let permit = state.governor.admit(now, &principal.policy().uid, &access.server().uid).map_err(Refusal::Denied)?;
    let grant = context.policy.tool_grant(&state.metrics, principal, access);
    match state.leases.reserve(&grant.priced_call(), &grant.budgets).await {
        Ok(reservation) => Ok(Held { active: state.enter(), slot, permit, reservation }),
        Err(denial) => {
            // What is refused for want of money does not use up the rate as well.
            permit.undo();
            Err(Refusal::Denied(denial))
        }
    }
}

fn refused(refusal: Refusal, id: &Id, revision: Revision, name: &str) -> Rejection {
    match refusal {
        Refusal::Unknown(reason) => {
            let text = format!("Unknown tool: {}", echo(name));
            let failure = Failure { status: StatusCode::OK, code: -32602, message: &text, data: None };
            Rejection::new(reason, error(Some(id), &failure))
        }
        Refusal::Denied(denial) => {
            let response = result(id, &[&denied_call(&denial, !revision.is_legacy())]);
            Rejection::new(denial.reason, response)
        }
    }
}
