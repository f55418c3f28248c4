//! Sessions of legacy messages.

use http::StatusCode;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::json::Members;
use mcp_fleet_policy::reason::Reason;

use crate::gateway::request::{Id, Revision};
use crate::gateway::respond::{Rejection, denied_request};
use crate::gateway::state::{LegacySession, RequestContext};

/// Returns the session of a message and its revision: the one that was negotiated, whichever offered revision the version
/// header names. Some clients name one and the same in each request.
///
/// A missing session id is answered with 400. One that is not or no longer the caller's is answered with 404, which
/// makes the client initialize again.
pub(super) fn open(context: &RequestContext<'_>, id: Option<&Id>) -> Result<(Revision, LegacySession), Rejection> {
    let reject = |status, reason: Reason, limit: &'static str| {
        let denial = Denial::new(reason).with_limit(limit);
        Rejection::new(reason, denied_request(id, status, &denial))
    };
    let Some(sealed) = context.session else {
        let limit = "the header Mcp-Session-Id is missing";
        return Err(reject(StatusCode::BAD_REQUEST, Reason::SessionInvalid, limit));
    };
    let owner = context.session_owner();
    let Ok(revision) = context.policy.session_sealer.open(sealed, owner, context.now.unix_seconds()) else {
        let limit = "the session is not known";
        return Err(reject(StatusCode::NOT_FOUND, Reason::SessionInvalid, limit));
    };
    Ok((revision, context.state.legacy_calls.session(owner.principal_uid, sealed)))
}

/// Cancels the call that a `notifications/cancelled` names, if it is in flight in the session.
pub(super) fn cancel(context: &RequestContext<'_>, session: LegacySession, params: &Members<'_>) {
    let id = params.iter().find_map(|(name, value)| (name == "requestId").then(|| Id::from_value(value)));
    if let Some(Ok(id)) = id {
        context.state.legacy_calls.cancel(session, id);
    }
}
