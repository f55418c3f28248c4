//! The end of a call that was admitted: money, counters, audit line, in any order of events exactly once.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mcp_fleet_policy::budget::Charge;
use mcp_fleet_policy::governor::Permit;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;
use ulid::Ulid;

use crate::gateway::audit::{CallRecord, Decision, Line, LineSlot};
use crate::gateway::budget::Reservation;
use crate::gateway::policy::ToolGrant;
use crate::gateway::request::Revision;
use crate::gateway::state::{ActiveRequest, State};

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With an answer of the server that was released.
    Answered {
        /// What the server wrote.
        answer: Bytes,
        /// Whether the server said that the tool failed.
        tool_error: bool,
    },
    /// The shim refused it before the server saw it.
    Refused(Reason),
    /// No answer that could be released.
    Failed(Reason, Charge),
}

/// What an admitted call holds, until it is settled. Dropped unsettled (its client went away, where that cancels),
/// it counts as cancelled and is paid in full.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) state: Arc<State>,
    pub(crate) grant: Arc<ToolGrant>,
    pub(crate) revision: Revision,
    pub(crate) started: Instant,
    pub(crate) call: Ulid,
    /// As they were forwarded.
    pub(crate) arguments: Bytes,
    pub(crate) held: Option<Held>,
}

/// What is given back.
#[derive(Debug)]
pub(crate) struct Held {
    /// Keeps the gateway from ending before the call, also after its client has gone.
    pub(crate) active: ActiveRequest,
    pub(crate) slot: LineSlot,
    pub(crate) permit: Permit,
    pub(crate) reservation: Reservation,
}

impl Settlement {
    /// Ends the call.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(Held { active, slot, permit, reservation }) = self.held.take() else { return };
        let Self { state, grant, revision, started, call, arguments, held: _ } = self;
        let duration = started.elapsed();
        let mut result = None;
        let (decision, reason, charge, error) = match outcome {
            Outcome::Answered { tool_error, answer } => {
                result = Some(answer);
                (Decision::Allowed, None, Charge::Full, if tool_error { "tool_error" } else { "" })
            }
            Outcome::Refused(reason) => (Decision::Denied, Some(reason), Charge::Nothing, reason.as_str()),
            Outcome::Failed(reason, charge) => (Decision::Failed, Some(reason), charge, reason.as_str()),
        };
        reservation.settle(charge);
        drop(permit);
        let cost = if charge == Charge::Full { grant.price } else { Micros::ZERO };
        grant.metrics.decided(decision);
        grant.metrics.spent(cost);
        if let Some(reason) = reason {
            state.metrics.denied(&grant.subject, reason);
        }
        if error.is_empty() {
            grant.metrics.took(&state.metrics, &grant.subject, *revision, duration);
        } else {
            state.metrics.took(&grant.subject, Some(*revision), error, duration);
        }
        let record = CallRecord {
            slot,
            subject: Arc::clone(&grant.subject),
            line: Line::new(*call, decision, reason, cost, duration),
            key: grant.argument_key.clone(),
            arguments: std::mem::take(arguments),
            result,
        };
        // The gateway does not end before the line is written.
        record.submit(active);
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        self.end(Outcome::Failed(Reason::Cancelled, Charge::Full));
    }
}
