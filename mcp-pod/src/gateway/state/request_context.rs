//! One request's view of the shared state.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::engine::ServerAccess;
use mcp_fleet_policy::reason::Reason;

use super::State;
use crate::gateway::policy::ActivePolicy;
use crate::gateway::request::{Caller, SessionOwner};

/// Context of an authenticated message to one server.
#[derive(Debug)]
pub(crate) struct RequestContext<'p> {
    pub(crate) state: &'p Arc<State>,
    pub(crate) policy: &'p Arc<ActivePolicy>,
    pub(crate) caller: Caller<'p>,
    pub(crate) view: ServerAccess<'p>,
    /// Arrival of the request in Unix seconds.
    pub(crate) now: i64,
    /// Length of the message in bytes.
    pub(crate) length: usize,
    /// Whether the client accepts an event stream as an answer.
    pub(crate) events: bool,
    /// Legacy session id in the headers.
    pub(crate) session: Option<&'p [u8]>,
}

impl<'p> RequestContext<'p> {
    /// Checks that the policy is fresh enough for tools of `class`, and that the caller is not suspended.
    pub(crate) fn check_in_force(&self, class: Class) -> Result<(), Reason> {
        if let Some(reason) = self.caller.suspended {
            return Err(reason);
        }
        let age = self.state.policy_age().unwrap_or(Duration::MAX);
        self.policy.compiled.check_fresh(age, class)
    }

    /// Returns the owner of the caller's sessions with this server.
    pub(crate) fn session_owner(&self) -> SessionOwner<'p> {
        SessionOwner { principal_uid: &self.caller.principal.model().uid, server_uid: &self.view.server().uid }
    }
}
