//! Forwarded requests, as metrics.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// How a request ended that was sent to another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardOutcome {
    /// The other gateway answered, and the whole answer was passed on.
    Answered,
    /// The other gateway is not the home of the caller.
    NotHome,
    /// There was no connection, or the other gateway did not say in time whether it wants the request.
    Unreachable,
    /// The connection was lost when the call may have been made, or before the end of the answer.
    Lost,
    /// The client hung up, or did not send its request in time.
    Aborted,
}

impl ForwardOutcome {
    const ALL: [Self; 5] = [Self::Answered, Self::NotHome, Self::Unreachable, Self::Lost, Self::Aborted];

    /// Returns the value of the label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotHome => "not_home",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Aborted => "aborted",
        }
    }
}

/// The metrics `mcp_pod_forwarded_requests_total` and `mcp_pod_peer_listener_up`.
#[derive(Debug)]
pub(crate) struct ForwardMetrics {
    /// In the order of [`ForwardOutcome::ALL`].
    requests: [IntCounter; 5],
    listener_up: IntGauge,
}

impl ForwardMetrics {
    /// Registers the metrics.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "mcp_pod_forwarded_requests_total",
                "Requests that were sent to the home of their caller, by outcome",
            ),
            &["outcome"],
        )?;
        let listener_up = IntGauge::new(
            "mcp_pod_peer_listener_up",
            "1 while this gateway accepts requests that other gateways of its tenant forward",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(listener_up.clone()))?;
        let requests = ForwardOutcome::ALL.map(|outcome| requests.with_label_values(&[outcome.as_str()]));
        Ok(Self { requests, listener_up })
    }

    /// Sets whether requests that other gateways forward are accepted.
    pub(crate) fn set_listener_up(&self, up: bool) {
        self.listener_up.set(i64::from(up));
    }

    /// Counts a request that was sent to another gateway.
    pub(crate) fn count(&self, outcome: ForwardOutcome) {
        if let Some((_, counter)) = ForwardOutcome::ALL.iter().zip(&self.requests).find(|(known, _)| **known == outcome)
        {
            counter.inc();
        }
    }
}
