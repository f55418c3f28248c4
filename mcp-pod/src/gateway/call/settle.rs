//! Settlement of an admitted call: charge, counters and audit line, exactly once however the call ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_fleet_policy::breaker::Pass;
use mcp_fleet_policy::budget::Charge;
use mcp_fleet_policy::governor::Permit;
use mcp_fleet_policy::reason::Reason;
use ulid::Ulid;

use super::outcome::Outcome;
use super::watch::{Warning, Watched};
use crate::gateway::audit::{CallRecord, CallSlots, Decision, Line, PendingLine};
use crate::gateway::budget::Reservation;
use crate::gateway::metrics::ErrorType;
use crate::gateway::policy::ToolGrant;
use crate::gateway::request::Revision;
use crate::gateway::state::{ActiveRequest, State};
use crate::gateway::trace::TraceContext;

/// An admitted call that is not settled yet. If it is dropped (its client went away, which cancels a modern call), the
/// call is settled as cancelled, and charged in full if it was handed to its server.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) state: Arc<State>,
    pub(super) grant: Arc<ToolGrant>,
    pub(super) revision: Revision,
    pub(super) started: Instant,
    pub(super) call: Ulid,
    pub(super) trace: TraceContext,
    /// Arguments as they are forwarded.
    pub(super) arguments: Bytes,
    /// Keyed digest of the arguments, once it is computed.
    pub(super) digest: Option<[u8; 32]>,
    /// When the call was handed to its server.
    pub(super) handed_over: Option<Instant>,
    /// Absent if loops are not observed.
    pub(super) watched: Option<Watched>,
    /// Absent once the call is settled.
    pub(super) resources: Option<Resources>,
}

/// Resources that an admitted call holds until it is settled.
#[derive(Debug)]
pub(super) struct Resources {
    /// Keeps the gateway running until the call has ended, even after its client has gone.
    pub(super) active: ActiveRequest,
    pub(super) slots: CallSlots,
    /// Absent if the call stays in flight after it is settled.
    pub(super) permit: Option<Permit>,
    pub(super) reservation: Reservation,
    pub(super) pass: Pass,
}

impl Settlement {
    /// Records that the call is about to be forwarded, if it may change something. The call must not be forwarded before
    /// the line is written: if this process dies meanwhile, the line is the only evidence of the call.
    pub(super) fn record_admission(&mut self) -> Option<PendingLine> {
        let slot = self.resources.as_mut()?.slots.admission.take()?;
        let digest = self.grant.argument_key.digest(&self.arguments);
        self.digest = Some(digest);
        let line = Line::admitted(self.call, self.trace, digest, self.started.elapsed());
        Some(slot.write_now(&line, &self.grant.subject))
    }

    /// Settles the call. Returns what its caller is told, if the call is part of a loop.
    pub(super) fn settle(mut self, outcome: Outcome) -> Option<Warning> {
        self.end(outcome)
    }

    /// Takes back the admission of a call that was not handed to its server and has to be decided again. Its line about
    /// the admission, if there is one, is followed by the line of the next decision.
    pub(super) fn withdraw(mut self) {
        let Some(Resources { active, slots, permit, reservation, pass }) = self.resources.take() else { return };
        reservation.settle(Charge::Nothing);
        permit.into_iter().for_each(Permit::refund);
        drop((pass, slots, active));
    }

    /// Takes the call's place among the calls in flight, so that it outlasts the settlement.
    pub(super) fn take_permit(&mut self) -> Option<Permit> {
        self.resources.as_mut()?.permit.take()
    }

    fn end(&mut self, outcome: Outcome) -> Option<Warning> {
        let Resources { active, slots, permit, reservation, pass } = self.resources.take()?;
        let Self {
            state,
            grant,
            revision,
            started,
            call,
            trace,
            arguments,
            digest,
            handed_over,
            watched,
            resources: _,
        } = self;
        let evidence = watched.as_ref().and_then(|watched| watched.settle(state, &grant.subject, arguments, &outcome));
        let duration = started.elapsed();
        if let Some(up) = outcome.is_up() {
            grant.upstream.note_health(up);
        }
        if let Some(end) = outcome.call_end() {
            let took = handed_over.map_or(Duration::ZERO, |at| at.elapsed());
            state.metrics.breakers.count(&grant.subject, grant.breaker.record(state.tick(), pass, end, took));
        }
        let mut result = None;
        let (decision, reason, charge, error) = match outcome {
            Outcome::Answered { tool_error, answer, charge } => {
                result = Some(answer);
                (Decision::Allowed, None, charge, tool_error.then_some(ErrorType::Tool))
            }
            Outcome::Denied(reason) => (Decision::Denied, Some(reason), Charge::Nothing, Some(reason.into())),
            Outcome::Starting => {
                let reason = Reason::UpstreamTimeout;
                (Decision::Failed, Some(reason), Charge::Nothing, Some(reason.into()))
            }
            Outcome::Failed(reason, charge) => (Decision::Failed, Some(reason), charge, Some(reason.into())),
        };
        reservation.settle(charge);
        drop(permit);
        let cost = charge.cost(grant.price);
        grant.metrics.count(decision);
        grant.metrics.add_spend(cost);
        if let Some(reason) = reason {
            state.metrics.count_denial(&grant.subject, reason);
        }
        if error.is_none() {
            grant.metrics.observe_duration(&state.metrics, &grant.subject, *revision, duration);
        } else {
            state.metrics.observe_duration(&grant.subject, Some(*revision), error, duration);
        }
        let mut line = Line::new(*call, *trace, decision, reason, cost, duration);
        line.arguments = *digest;
        line.looping = evidence.map(|evidence| evidence.kind);
        let record = CallRecord {
            slot: slots.outcome,
            subject: Arc::clone(&grant.subject),
            line,
            key: grant.argument_key.clone(),
            arguments: std::mem::take(arguments),
            result,
        };
        // The gateway does not end before the line is written.
        record.submit(active);
        watched.as_ref()?.warning(grant, &evidence?)
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        let charge = if self.handed_over.is_some() { Charge::Full } else { Charge::Nothing };
        // The caller has gone, so there is nobody to warn.
        let _ = self.end(Outcome::Failed(Reason::Cancelled, charge));
    }
}
