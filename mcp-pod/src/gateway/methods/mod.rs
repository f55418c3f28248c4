//! The MCP methods that the gateway offers. All others are rejected.
//!
//! Start with [`dispatch`]. `tools/call` has a folder of its own, [`super::call`].

mod initialize;
mod list;
mod session;

use http::{Response, StatusCode};
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::reason::Reason;

use super::audit::RequestRecord;
use super::call;
use super::memory::{Reservation, Use};
use super::request::{Era, Id, Message, Revision, TOOLS_CALL};
use super::respond::{Body, Rejection, accepted, result};
use super::state::{RequestContext, Unanswered};

/// Answers the message.
pub(crate) async fn dispatch(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    era: Era,
    message: Message<'_>,
) -> Result<Response<Body>, Unanswered> {
    match era {
        Era::Modern => modern(context, record, message).await,
        Era::Legacy => legacy(context, record, message).await,
    }
}

/// Answers a message of 2026-07-28.
async fn modern(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    message: Message<'_>,
) -> Result<Response<Body>, Unanswered> {
    let revision = Revision::V2026_07_28;
    record.revision = Some(revision);
    let Message { id, method, params } = message;
    // No notification has a meaning here: clients cancel by closing the connection.
    let Some(id) = id else { return Ok(accepted()) };
    match method.as_str() {
        TOOLS_CALL => call::call(context, record, revision, id, params, None).await,
        "tools/list" => list::list(context, record, revision, &id, &params).await,
        "server/discover" => initialize::discover(context, record, &id).await,
        _ => Err(Rejection::unknown_method(&id, StatusCode::NOT_FOUND).into()),
    }
}

/// Answers a message of an earlier revision.
async fn legacy(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    message: Message<'_>,
) -> Result<Response<Body>, Unanswered> {
    if message.method == "initialize" {
        return initialize::initialize(context, record, &message).await;
    }
    if let (Some(id), "server/discover") = (&message.id, message.method.as_str()) {
        // A client that asks which revisions there are has no session, and initializes one after this answer.
        return Err(Rejection::unknown_method(id, StatusCode::OK).into());
    }
    let (revision, session) = session::open(context, message.id())?;
    record.revision = Some(revision);
    let Message { id, method, params } = message;
    let Some(id) = id else {
        if method == "notifications/cancelled" {
            session::cancel(context, session, &params);
        }
        return Ok(accepted());
    };
    match method.as_str() {
        TOOLS_CALL => call::call(context, record, revision, id, params, Some(session)).await,
        "tools/list" => list::list(context, record, revision, &id, &params).await,
        "ping" => Ok(result(&id, &[b"{}"])),
        _ => Err(Rejection::unknown_method(&id, StatusCode::OK).into()),
    }
}

/// Reserves memory for an answer that contains this many bytes of a server's report, until the answer is written.
fn reserve_answer(
    context: &RequestContext<'_>,
    bytes: usize,
    id: &Id,
    revision: Revision,
) -> Result<Reservation, Rejection> {
    let account = &context.policy.memory(context.caller.principal).requests;
    account.reserve(bytes, Use::Answer).map_err(|full| Rejection::from(full).with_id(id, !revision.is_legacy()))
}

/// Counts and audits a request that is not a call, before it is answered.
async fn record_allowed(context: &RequestContext<'_>, record: &RequestRecord, id: &Id) -> Result<(), Unanswered> {
    let Ok(slot) = context.state.audit.reserve().await else {
        return Err(Rejection::denied(id, &Denial::new(Reason::AuditUnavailable)).into());
    };
    // The request may have waited for the slot, and before for the server's report.
    if context.is_outdated() || context.check_in_force(Class::Read).is_err() {
        return Err(Unanswered::Outdated);
    }
    context.state.record_allowed(record, context.policy, slot);
    Ok(())
}
