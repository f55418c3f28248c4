//! What each method of MCP does here. A method that is not in this table is refused.

mod initialize;
mod list;
mod session;

use http::{Response, StatusCode};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::reason::Reason;

use super::audit::RequestRecord;
use super::call;
use super::request::{Era, Id, Message, Revision, TOOLS_CALL};
use super::respond::{Body, Rejection, accepted, result};
use super::state::RequestContext;

/// Does what the message asks.
pub(crate) async fn dispatch(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    era: Era,
    message: Message<'_>,
) -> Result<Response<Body>, Rejection> {
    match era {
        Era::Modern => modern(context, record, message).await,
        Era::Legacy(named) => legacy(context, record, named, message).await,
    }
}

/// A message of 2026-07-28.
async fn modern(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    message: Message<'_>,
) -> Result<Response<Body>, Rejection> {
    let revision = Revision::V2026_07_28;
    record.revision = Some(revision);
    let Message { id, method, params } = message;
    // Cancelling is done by closing the connection; no notification has anything to say.
    let Some(id) = id else { return Ok(accepted()) };
    match method.as_str() {
        TOOLS_CALL => call::call(context, record, revision, id, params, None).await,
        "tools/list" => list::list(context, record, revision, &id, &params).await,
        "server/discover" => initialize::discover(context, record, &id).await,
        _ => Err(Rejection::unknown_method(&id, StatusCode::NOT_FOUND)),
    }
}

/// A message of an earlier revision.
async fn legacy(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    named: Option<Revision>,
    message: Message<'_>,
) -> Result<Response<Body>, Rejection> {
    if message.method == "initialize" {
        return initialize::initialize(context, record, &message).await;
    }
    let (revision, session) = session::open(context, named, message.id())?;
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
        _ => Err(Rejection::unknown_method(&id, StatusCode::OK)),
    }
}

/// Audits a request that is not a call, before it is answered.
async fn audited(context: &RequestContext<'_>, record: &RequestRecord, id: &Id) -> Result<(), Rejection> {
    let written = context.state.record_allowed(record, context.policy).await;
    written.map_err(|_| Rejection::denied(id, &Denial::new(Reason::AuditUnavailable)))
}
