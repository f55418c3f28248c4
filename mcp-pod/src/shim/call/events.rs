//! The events that answer a call, and the metric that counts its outcome.

use std::sync::Arc;

use bytes::Bytes;
use mcp_fleet_policy::reason::Reason;

use super::super::metrics::{CallOutcome, Dropped, Metrics};
use super::super::server::rpc::{RequestHandle, RequestOutcome};
use crate::envelope::{MAX_PROGRESS_BYTES, Refusal, ShimEvent};

/// Makes the events of a call. Counts the call when dropped, as abandoned if there was no last event.
pub(super) struct CallRecorder {
    metrics: Arc<Metrics>,
    outcome: CallOutcome,
    /// Bytes of progress that the call may still have.
    progress_left: usize,
}

impl Drop for CallRecorder {
    fn drop(&mut self) {
        self.metrics.ended(self.outcome);
    }
}

impl CallRecorder {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, outcome: CallOutcome::Abandoned, progress_left: MAX_PROGRESS_BYTES }
    }

    /// Returns the event of one progress update, or `None` if the call would have more than [`MAX_PROGRESS_BYTES`] with it.
    pub(super) fn progress(&mut self, params: &[u8]) -> Option<Bytes> {
        let line = event("progress", params);
        let Some(left) = self.progress_left.checked_sub(line.len()) else {
            self.metrics.dropped(Dropped::Progress);
            return None;
        };
        self.progress_left = left;
        Some(line)
    }

    /// Returns the last event of a call that ended with `outcome`; `None` means that the outcome was lost.
    pub(super) fn finish(&mut self, outcome: Option<RequestOutcome>) -> Bytes {
        let (reason, detail, forwarded) = match outcome {
            Some(RequestOutcome::Result(result)) => {
                self.outcome = CallOutcome::Answered;
                return event("result", &result);
            }
            Some(RequestOutcome::Error(error)) => {
                self.outcome = CallOutcome::Answered;
                return event("error", &error);
            }
            Some(RequestOutcome::TooLarge) => (Reason::ResponseTooLarge, "the answer is larger than the limit", true),
            // The second ends no call, because calls begin when the server has started.
            Some(RequestOutcome::Invalid | RequestOutcome::OtherId(_)) => (
                Reason::UpstreamInvalid,
                "the answer does not have exactly one of result and error, as an object",
                true,
            ),
            Some(RequestOutcome::NotJson) => (
                Reason::UpstreamInvalid,
                "the answer is not valid JSON-RPC 2.0 (NaN and Infinity are no numbers)",
                true,
            ),
            Some(RequestOutcome::ServerEnded { forwarded }) => {
                (Reason::UpstreamUnavailable, "the server ended before it answered", forwarded)
            }
            Some(RequestOutcome::Cancelled) => {
                (Reason::Cancelled, "the call was cancelled while the server worked on it", true)
            }
            Some(RequestOutcome::Failed { reason, detail, forwarded }) => {
                return self.refuse(reason, &detail, forwarded);
            }
            // Should not happen: the client ends every request with an outcome. If it does, assume the worst.
            None => (Reason::UpstreamUnavailable, "the call was lost", true),
        };
        self.refuse(reason, detail, forwarded)
    }

    /// Returns the last event of a call that the server did not answer in time, which is also the reason for cancelling
    /// the request.
    pub(super) fn time_out(&mut self, handle: &mut RequestHandle) -> Bytes {
        handle.cancel_reason = "timed out";
        self.refuse(Reason::UpstreamTimeout, "the server did not answer in time", handle.forwarded())
    }

    /// Returns the last event of a call without an answer from the server.
    pub(super) fn refuse(&mut self, reason: Reason, detail: &str, forwarded: bool) -> Bytes {
        self.outcome = if forwarded { CallOutcome::Failed } else { CallOutcome::Refused };
        Self::refused(Refusal {
            reason: reason.as_str().to_owned(),
            detail: detail.to_owned(),
            forwarded,
            starting: false,
        })
    }

    /// Returns the last event of a call that could not wait any longer for the start of its server.
    pub(super) fn refuse_while_starting(&mut self) -> Bytes {
        self.outcome = CallOutcome::Refused;
        Self::refused(Refusal {
            reason: Reason::UpstreamTimeout.as_str().to_owned(),
            detail: "the server, which nobody had called for a while, did not start in time".to_owned(),
            forwarded: false,
            starting: true,
        })
    }

    fn refused(refusal: Refusal) -> Bytes {
        let mut line = serde_json::to_vec(&ShimEvent::Refused(refusal)).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

/// Returns the line of one event. `value` is what the server wrote, which is one line already.
pub(super) fn event(name: &str, value: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(name.len() + value.len() + 6);
    line.extend_from_slice(b"{\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    line.extend_from_slice(value);
    line.extend_from_slice(b"}\n");
    line.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn events_written_by_hand_parse_as_events_of_the_envelope() {
        let read = |line: Bytes| serde_json::from_slice::<ShimEvent>(&line).unwrap();
        let raw = br#"{"n": 1.50}"#;
        assert!(matches!(read(event("result", raw)), ShimEvent::Result(value) if value.get().as_bytes() == raw));
        assert!(matches!(read(event("error", raw)), ShimEvent::Error(value) if value.get().as_bytes() == raw));
        assert!(matches!(read(event("progress", raw)), ShimEvent::Progress(value) if value.get().as_bytes() == raw));
        let mut recorder = CallRecorder::new(Arc::new(Metrics::new().unwrap()));
        let line = recorder.refuse(Reason::PathOutsideRoots, "why", false);
        assert!(matches!(read(line), ShimEvent::Refused(refusal) if refusal.reason == "path_outside_roots"));
    }
}
