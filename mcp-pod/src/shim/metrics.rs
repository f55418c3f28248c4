//! The shim's metrics. Label values are closed sets: no text from a server or a caller becomes one.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The shim's metrics and their registry.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// `mcp_pod_shim_server_starts_total`: how often the server was started, including the first time, but not by calls.
    pub(super) starts: IntCounter,
    /// `mcp_pod_shim_server_wakes_total`: how often a call started the server, which had been stopped because nobody called it.
    pub(super) wakes: IntCounter,
    /// `mcp_pod_shim_server_ready`: 1 while the server takes calls, and while it is started by the next one.
    pub(super) ready: IntGauge,
    /// `mcp_pod_shim_server_idle`: 1 while the server is stopped because nobody calls it.
    pub(super) idle: IntGauge,
    /// `mcp_pod_shim_calls_in_flight`: requests that the server has not answered yet.
    pub(super) in_flight: IntGauge,
    calls: IntCounterVec,
    dropped: IntCounterVec,
}

/// How a call ended, as the label `outcome` of `mcp_pod_shim_calls_total`.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallOutcome {
    /// The server sent a result or an error.
    Answered,
    /// The call was not forwarded to the server.
    Refused,
    /// The call was forwarded, but there is no answer to pass on.
    Failed,
    /// The caller closed the connection before the answer.
    Abandoned,
}

impl CallOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What was dropped, as the label `kind` of `mcp_pod_shim_server_output_dropped_total`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dropped {
    /// A line of output that is not JSON-RPC.
    Garbage,
    /// A response to a request that was never sent, or has ended already.
    Stray,
    /// A line longer than any call in flight allows.
    TooLong,
    /// Progress that was too long, above the limit of its call, or not read by the caller in time.
    Progress,
    /// A line for the server that is not a call, dropped because the server does not read: a response to a request of the
    /// server, or a notification.
    Reply,
    /// A line of standard error above the rate limit.
    Stderr,
}

impl Dropped {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Stray => "stray",
            Self::TooLong => "too_long",
            Self::Progress => "progress",
            Self::Reply => "reply",
            Self::Stderr => "stderr",
        }
    }
}

impl Metrics {
    /// Creates and registers the metrics.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            starts: IntCounter::new(
                "mcp_pod_shim_server_starts_total",
                "Times the tool server was started, other than by a call.",
            )?,
            wakes: IntCounter::new(
                "mcp_pod_shim_server_wakes_total",
                "Times a call started the tool server, which had been stopped because nobody called it.",
            )?,
            idle: IntGauge::new(
                "mcp_pod_shim_server_idle",
                "1 while the tool server is stopped because nobody calls it.",
            )?,
            ready: IntGauge::new(
                "mcp_pod_shim_server_ready",
                "1 while the tool server takes calls, also if the next one starts it.",
            )?,
            in_flight: IntGauge::new("mcp_pod_shim_calls_in_flight", "Calls the tool server has not answered yet.")?,
            calls: IntCounterVec::new(
                Opts::new("mcp_pod_shim_calls_total", "Calls that reached the shim, by how they ended."),
                &["outcome"],
            )?,
            dropped: IntCounterVec::new(
                Opts::new("mcp_pod_shim_server_output_dropped_total", "Messages and lines thrown away, by kind."),
                &["kind"],
            )?,
        };
        metrics.registry.register(Box::new(metrics.starts.clone()))?;
        metrics.registry.register(Box::new(metrics.wakes.clone()))?;
        metrics.registry.register(Box::new(metrics.idle.clone()))?;
        metrics.registry.register(Box::new(metrics.ready.clone()))?;
        metrics.registry.register(Box::new(metrics.in_flight.clone()))?;
        metrics.registry.register(Box::new(metrics.calls.clone()))?;
        metrics.registry.register(Box::new(metrics.dropped.clone()))?;
        Ok(metrics)
    }

    /// Counts a call that ended.
    pub(super) fn ended(&self, outcome: CallOutcome) {
        self.calls.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts something that was dropped.
    pub(super) fn dropped(&self, kind: Dropped) {
        self.dropped.with_label_values(&[kind.as_str()]).inc();
    }

    /// Returns the registry that holds all of them.
    pub(super) fn registry(&self) -> Registry {
        self.registry.clone()
    }
}

#[cfg(test)]
mod tests {
    use mcp_fleet_admin::testing::metrics_without_values;

    use super::*;

    /// The tests of the chart's rules and dashboards read the snapshot.
    #[test]
    fn a_tool_pod_exports_the_metrics_that_the_chart_uses() {
        let metrics = Metrics::new().unwrap();
        metrics.ended(CallOutcome::Answered);
        metrics.dropped(Dropped::Garbage);
        let text = metrics_without_values(&metrics.registry()).unwrap();
        insta::with_settings!({snapshot_path => "../../../tests/monitoring/metrics", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!("server", text);
        });
    }
}
