//! One request's view of the shared state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::engine::ServerAccess;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::unreadable::Unreadable;

use super::{Absence, Admission, HomeVersion, NoHome, State};
use crate::gateway::clock::Moment;
use crate::gateway::policy::ActivePolicy;
use crate::gateway::request::{Caller, SessionOwner};
use crate::gateway::respond::Rejection;
use crate::gateway::trace::StateSource;

/// Why a message has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Rejected(Rejection),
    /// While the message waited, a newer policy came into force, the policy became stale, or the token expired. The
    /// message has to be decided again from the start; nothing is left of the first attempt.
    Outdated,
    /// While the message waited, another gateway became the home of the caller. Nothing has been done with it.
    Elsewhere,
}

impl From<Rejection> for Unanswered {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Context of an authenticated message to one server.
#[derive(Debug)]
pub(crate) struct RequestContext<'p> {
    pub(crate) state: &'p Arc<State>,
    pub(crate) policy: &'p Arc<ActivePolicy>,
    pub(crate) caller: Caller<'p>,
    pub(crate) view: ServerAccess<'p>,
    /// When the caller was authenticated.
    pub(crate) now: Moment,
    /// Length of the message in bytes.
    pub(crate) length: usize,
    /// Whether the client accepts an event stream as an answer.
    pub(crate) events: bool,
    /// Legacy session id in the headers.
    pub(crate) session: Option<&'p [u8]>,
    /// What a call does if this gateway is not the home of the caller.
    pub(crate) absence: Absence,
    /// Where the state of the caller's trace is.
    pub(crate) trace_state: StateSource<'p>,
    /// What is wrong with the arguments of the call, which are then not part of the message.
    pub(crate) unreadable: Option<&'p Unreadable>,
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

    /// Returns by what this gateway is the home of the caller. Waits a little if it is not at the moment.
    pub(crate) async fn enter_home(&self) -> Result<HomeVersion, NoHome> {
        self.state.homes.enter(&self.caller.principal.model().uid, self.absence).await
    }

    /// Returns whether the caller has to be authenticated again: there is a newer policy, or the token has expired.
    pub(crate) fn is_outdated(&self) -> bool {
        Instant::now() >= self.caller.expires_at || self.state.newer_policy(self.policy).is_some()
    }

    /// Returns what has to hold when a call of a tool of `class`, allowed now, is handed to its server.
    pub(crate) fn admission(&self, class: Class, home: HomeVersion) -> Admission {
        Admission {
            generation: self.policy.tenant_policy().generation,
            stale_after: self.policy.compiled.stale_after(class),
            expires_at: self.caller.expires_at,
            home,
        }
    }

    /// Returns the owner of the caller's sessions with this server.
    pub(crate) fn session_owner(&self) -> SessionOwner<'p> {
        SessionOwner { principal_uid: &self.caller.principal.model().uid, server_uid: &self.view.server().uid }
    }
}
