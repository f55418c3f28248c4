//! What a method works with.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::engine::View;
use mcp_fleet_policy::reason::Reason;

use super::State;
use crate::gateway::policy::ActivePolicy;
use crate::gateway::request::{Caller, SessionOwner};

/// An authenticated message for one server, and the shared state it is answered from.
#[derive(Debug)]
pub(crate) struct RequestContext<'p> {
    pub(crate) state: &'p Arc<State>,
    pub(crate) policy: &'p Arc<ActivePolicy>,
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

impl<'p> RequestContext<'p> {
    /// Whether the policy can be relied on for a tool of that class, and nobody is suspended.
    pub(crate) fn in_force(&self, class: Class) -> Result<(), Reason> {
        if let Some(reason) = self.caller.suspended {
            return Err(reason);
        }
        let age = self.state.policy_age().unwrap_or(Duration::MAX);
        self.policy.compiled.check_fresh(age, class)
    }

    /// Whom a session of this caller with this server belongs to.
    pub(crate) fn owner(&self) -> SessionOwner<'p> {
        SessionOwner { principal_uid: &self.caller.principal.policy().uid, server_uid: &self.view.server().uid }
    }
}
