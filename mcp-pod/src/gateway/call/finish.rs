//! The end of a call: checks the answer, settles the call, and writes the message that the caller gets.

use std::sync::Arc;

use http::Response;
use mcp_fleet_policy::budget::Charge;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::reason::Reason;
use tracing::{info, warn};

use super::answer::{Expected, check_error, check_result};
use super::outcome::Outcome;
use super::settle::Settlement;
use super::watch::Warning;
use crate::gateway::memory::{Use, VALUE};
use crate::gateway::request::Id;
use crate::gateway::respond::{Body, denied_call, message, result_message, with_warning};
use crate::gateway::upstream::{Event, UpstreamError};

/// Why a call got no answer that can be released, and what it costs.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: Reason,
    pub(super) charge: Charge,
    /// Error of the upstream, if that is the cause.
    error: Option<UpstreamError>,
}

impl Failed {
    /// A failure of a call that the server may have seen.
    pub(super) const fn charged(reason: Reason) -> Self {
        Self { reason, charge: Charge::Full, error: None }
    }

    /// Returns whether the server may still work on the call after this failure.
    pub(super) fn server_may_work(&self) -> bool {
        match &self.error {
            // The timeout bounds how long a call counts as in flight.
            None => self.reason == Reason::Cancelled,
            Some(error) => error.leaves_answer_open(),
        }
    }

    /// Returns whether there was no connection to any pod.
    pub(super) const fn is_unconnected(&self) -> bool {
        matches!(self.error, Some(UpstreamError::Connect(_) | UpstreamError::NoPod))
    }

    /// Returns the same failure of a call that was still waiting for its connection. If it was not the upstream that
    /// failed, the server has certainly not seen the call.
    pub(super) fn before_hand_over(self) -> Self {
        if self.error.is_none() { Self { charge: Charge::Nothing, ..self } } else { self }
    }
}

impl From<UpstreamError> for Failed {
    fn from(error: UpstreamError) -> Self {
        let (reason, charge) = match &error {
            // The shim answers with a status other than 200 only before it has given the call to its server.
            UpstreamError::Connect(_) | UpstreamError::NoPod | UpstreamError::Paused | UpstreamError::Status(_) => {
                (Reason::UpstreamUnavailable, Charge::Nothing)
            }
            UpstreamError::Broken(_) => (Reason::UpstreamUnavailable, Charge::Full),
            UpstreamError::Malformed(_) | UpstreamError::Ended(_) => (Reason::UpstreamInvalid, Charge::Full),
            UpstreamError::TooLarge => (Reason::ResponseTooLarge, Charge::Full),
        };
        Self { reason, charge, error: Some(error) }
    }
}

/// Settles a call that is not forwarded because its audit line was not written in time, and answers it.
pub(super) fn deny_unaudited(settlement: Settlement, id: &Id) -> Response<Body> {
    let (reason, modern) = (Reason::AuditUnavailable, !settlement.revision.is_legacy());
    let warning = settlement.settle(Outcome::Denied(reason));
    message(failure_message(id, reason, modern, warning.as_ref()))
}

/// Settles a call and returns the message that ends it. `ended` is the last event of the exchange.
pub(super) fn finish(settlement: Settlement, id: &Id, ended: Result<Event, Failed>) -> Vec<u8> {
    let modern = !settlement.revision.is_legacy();
    let grant = Arc::clone(&settlement.grant);
    let limit = grant.max_response;
    let expected = Expected { limit, modern, price: grant.result_price.as_deref().map(|price| (price, grant.price)) };
    let mut values = grant.account.empty();
    let mut reserve = |more: usize| values.grow(more * VALUE, Use::Answer).is_ok();
    let checked = ended.and_then(|event| match event {
        Event::Result(text) => check_result(id, text, &expected, &mut reserve).map(Ok).map_err(Failed::charged),
        Event::Error(text) => check_error(id, text, limit, &mut reserve).map(Ok).map_err(Failed::charged),
        Event::Refused(refusal) => Ok(Err(refusal)),
        Event::Progress(_) => Err(Failed::charged(Reason::UpstreamInvalid)),
    });
    let (reason, outcome) = match checked {
        Ok(Ok(answer)) => {
            let (text, tool_error) = (answer.text.clone(), answer.tool_error);
            let outcome = Outcome::Answered { answer: text, tool_error, charge: answer.charge };
            return match settlement.settle(outcome) {
                None => answer.message,
                Some(Warning { text, data }) => answer.warned(id, modern, &text, &data),
            };
        }
        Ok(Err(refusal)) => {
            let reason = Reason::from_name(&refusal.reason).unwrap_or(Reason::UpstreamInvalid);
            let (call, trace_id) = (settlement.call, settlement.trace.trace_id());
            info!(%call, %trace_id, reason = reason.as_str(), detail = refusal.detail, "the shim refused a call");
            let outcome = match (refusal.forwarded, reason) {
                (false, Reason::UpstreamTimeout) if refusal.starting => Outcome::Starting,
                (false, Reason::PathOutsideRoots) => Outcome::Denied(reason),
                (false, _) => Outcome::Failed(reason, Charge::Nothing),
                (true, _) => Outcome::Failed(reason, Charge::Full),
            };
            (reason, outcome)
        }
        Err(Failed { reason, charge, error }) => {
            if let Some(error) = &error {
                let error: &dyn std::error::Error = error;
                let (call, trace_id) = (settlement.call, settlement.trace.trace_id());
                warn!(error, %call, %trace_id, "failed to forward a call");
            }
            (reason, Outcome::Failed(reason, charge))
        }
    };
    let warning = settlement.settle(outcome);
    failure_message(id, reason, modern, warning.as_ref())
}

/// Returns the message about a call without an answer of its server.
fn failure_message(id: &Id, reason: Reason, modern: bool, warning: Option<&Warning>) -> Vec<u8> {
    let result = denied_call(&Denial::new(reason), modern);
    match warning {
        None => result_message(id, &[&result]),
        Some(Warning { text, data }) => result_message(id, &[&with_warning(&result, text, data)]),
    }
}
