//! Forwarded requests, as a metric.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

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

/// The metric `mcp_pod_forwarded_requests_total`.
#[derive(Debug)]
pub(crate) struct ForwardMetrics {
    /// In the order of [`ForwardOutcome::ALL`].
    requests: [IntCounter; 5],
}

impl ForwardMetrics {
    /// Registers the metric.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "mcp_pod_forwarded_requests_total",
                "Requests that were sent to the home of their caller, by outcome",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Self { requests: ForwardOutcome::ALL.map(|outcome| requests.with_label_values(&[outcome.as_str()])) })
    }

    /// Counts a request that was sent to another gateway.
    pub(crate) fn count(&self, outcome: ForwardOutcome) {
        if let Some((_, counter)) = ForwardOutcome::ALL.iter().zip(&self.requests).find(|(known, _)| **known == outcome)
        {
            counter.inc();
        }
    }
}
