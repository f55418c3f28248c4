//! The session that a legacy message belongs to.

use http::StatusCode;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::json::Members;
use mcp_fleet_policy::reason::Reason;

use super::Context;
use crate::gateway::decode::{Id, Revision};
use crate::gateway::inflight::Session;
use crate::gateway::refused::Refused;
use crate::gateway::respond::denied_request;
use crate::gateway::session::Owner;

/// Opens the session id of a message: 400 without one, 404 with one that is not the caller's (any more), so that its
/// client initializes anew.
pub(super) fn open(
    context: &Context<'_>,
    named: Option<Revision>,
    id: Option<&Id>,
) -> Result<(Revision, Session), Refused> {
    let refused = |status, reason: Reason, limit: &'static str| {
        let denial = Denial::new(reason).with_limit(limit);
        Refused::new(reason, denied_request(id, status, &denial))
    };
    let Some(sealed) = context.session else {
        let limit = "the header Mcp-Session-Id is missing";
        return Err(refused(StatusCode::BAD_REQUEST, Reason::SessionInvalid, limit));
    };
    let owner = context.owner();
    let Ok(revision) = context.enforced.sealer.open(sealed, owner, context.now) else {
        let limit = "the session is not known";
        return Err(refused(StatusCode::NOT_FOUND, Reason::SessionInvalid, limit));
    };
    if named.is_some_and(|named| named != revision) {
        let limit = "MCP-Protocol-Version is not what the session negotiated";
        return Err(refused(StatusCode::BAD_REQUEST, Reason::RequestInvalid, limit));
    }
    Ok((revision, context.state.inflight.session(owner.principal_uid, sealed)))
}

/// Cancels the call that a `notifications/cancelled` names, if it is in flight in this session.
pub(super) fn cancel(context: &Context<'_>, session: Session, params: &Members<'_>) {
    let id = params.iter().find_map(|(name, value)| if name == "requestId" { Id::of(value) } else { None });
    if let Some(id) = id {
        context.state.inflight.cancel(session, id);
    }
}

impl<'p> Context<'p> {
    /// Whom a session of this caller with this server belongs to.
    pub(super) fn owner(&self) -> Owner<'p> {
        Owner { principal_uid: &self.caller.principal.policy().uid, server_uid: &self.view.server().uid }
    }
}
