//! What each method of MCP does here. A method that is not in this table is refused.

mod call;
mod initialize;
mod list;
mod session;

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::engine::View;
use mcp_fleet_policy::reason::Reason;

use super::authenticate::Caller;
use super::decode::{CALL, Id, Message, Revision};
use super::enforced::Enforced;
use super::journal::Journal;
use super::refused::Refused;
use super::respond::{Body, Failure, accepted, denied_request, error, result};
use super::state::State;

/// What a method works with.
#[derive(Debug)]
pub(crate) struct Context<'p> {
    pub(crate) state: &'p Arc<State>,
    pub(crate) enforced: &'p Arc<Enforced>,
    pub(crate) caller: Caller<'p>,
    pub(crate) view: View<'p>,
    /// Unix seconds.
    pub(crate) now: i64,
    /// Bytes of the message.
    pub(crate) length: usize,
    /// Whether the client takes an answer in events.
    pub(crate) events: bool,
    /// The legacy session id that was sent.
    pub(crate) session: Option<&'p [u8]>,
}

/// A message of 2026-07-28.
pub(crate) async fn modern(
    context: &Context<'_>,
    journal: &mut Journal,
    message: Message<'_>,
) -> Result<Response<Body>, Refused> {
    let revision = Revision::V2026_07_28;
    journal.revision = Some(revision);
    let Message { id, method, params } = message;
    // Cancelling is done by closing the connection; no notification has anything to say.
    let Some(id) = id else { return Ok(accepted()) };
    match method.as_str() {
        CALL => call::call(context, journal, revision, id, params, None).await,
        "tools/list" => list::list(context, journal, revision, &id, &params).await,
        "server/discover" => initialize::discover(context, journal, &id).await,
        _ => Err(unknown_method(&id, StatusCode::NOT_FOUND)),
    }
}

/// A message of an earlier revision.
pub(crate) async fn legacy(
    context: &Context<'_>,
    journal: &mut Journal,
    named: Option<Revision>,
    message: Message<'_>,
) -> Result<Response<Body>, Refused> {
    if message.method == "initialize" {
        return initialize::initialize(context, journal, &message).await;
    }
    let (revision, session) = session::open(context, named, message.id())?;
    journal.revision = Some(revision);
    let Message { id, method, params } = message;
    let Some(id) = id else {
        if method == "notifications/cancelled" {
            session::cancel(context, session, &params);
        }
        return Ok(accepted());
    };
    match method.as_str() {
        CALL => call::call(context, journal, revision, id, params, Some(session)).await,
        "tools/list" => list::list(context, journal, revision, &id, &params).await,
        "ping" => Ok(result(&id, &[b"{}"])),
        _ => Err(unknown_method(&id, StatusCode::OK)),
    }
}

fn unknown_method(id: &Id, status: StatusCode) -> Refused {
    let failure = Failure { status, code: -32601, message: "Method not found", data: None };
    Refused::new(Reason::MethodUnknown, error(Some(id), &failure))
}

/// Parameters that cannot be taken.
fn invalid_params(id: &Id, text: &str) -> Refused {
    let failure = Failure { status: StatusCode::OK, code: -32602, message: text, data: None };
    Refused::new(Reason::MessageInvalid, error(Some(id), &failure))
}

/// A refusal by policy where there is no tool result to say it in.
fn denied(id: &Id, denial: &Denial) -> Refused {
    Refused::new(denial.reason, denied_request(Some(id), StatusCode::OK, denial))
}

/// Audits a request that is not a call, before it is answered.
async fn audited(context: &Context<'_>, journal: &Journal, id: &Id) -> Result<(), Refused> {
    let written = journal.allowed(context.state, context.enforced).await;
    written.map_err(|_| denied(id, &Denial::new(Reason::AuditUnavailable)))
}

impl Context<'_> {
    /// Whether the policy can be relied on for a tool of that class, and nobody is suspended.
    fn in_force(&self, class: Class) -> Result<(), Reason> {
        if let Some(reason) = self.caller.suspended {
            return Err(reason);
        }
        let age = self.state.policy_age().unwrap_or(Duration::MAX);
        self.enforced.compiled.check_fresh(age, class)
    }
}
