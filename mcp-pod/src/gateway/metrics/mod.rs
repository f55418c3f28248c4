//! Counters and histograms.
//!
//! Labels are names of API objects or from closed sets, never text that a caller sent. The series of one tool's calls
//! are looked up once for each policy ([`ToolMetrics`]).

mod breakers;
mod error_type;
mod forwarded;
mod homes;
mod public_names;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mcp_fleet_policy::loops::Mode;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;
use parking_lot::Mutex;
use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use super::audit::{Decision, Subject};
use super::connection::Refusal;
use super::memory::{Memory, MemoryMetrics};
use super::request::Revision;
use crate::logging::DroppedLines;
use crate::tls::PublicNames;
pub(crate) use breakers::BreakerMetrics;
pub(crate) use error_type::ErrorType;
use forwarded::ForwardMetrics;
pub(crate) use forwarded::ForwardOutcome;
use homes::HomeMetrics;
use public_names::PublicNameMetrics;

/// Bucket bounds of the OpenTelemetry histogram `mcp.server.operation.duration`, in seconds.
const SECONDS: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// All metrics of one gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    denials: IntCounterVec,
    spend: CounterVec,
    loops: IntCounterVec,
    durations: HistogramVec,
    generation: IntGaugeVec,
    kill_switch: IntGauge,
    refused_connections: IntCounterVec,
    stuck: IntCounterVec,
    upstream_up: IntGaugeVec,
    /// Names of the servers that have a series.
    servers: Mutex<Vec<String>>,
    pub(crate) breakers: BreakerMetrics,
    pub(crate) forwarded: ForwardMetrics,
}

impl Metrics {
    /// Registers all metrics in a new registry. `lease_left` returns how long the lease of homes still lasts.
    pub(crate) fn new(
        memory: &Memory,
        names: &Arc<PublicNames>,
        lease_left: impl Fn() -> Option<Duration> + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let calls = IntCounterVec::new(
            Opts::new("mcp_pod_calls_total", "Calls of tools by how they were decided"),
            &["tenant", "principal", "server", "tool", "decision"],
        )?;
        let denials = IntCounterVec::new(
            Opts::new("mcp_pod_denials_total", "Rejection and failed requests by reason (docs/reasons.md)"),
            &["tenant", "server", "reason"],
        )?;
        let spend = CounterVec::new(
            Opts::new("mcp_pod_spend_total", "Money spent since this gateway started, in units of the currency"),
            &["tenant", "principal", "server", "tool", "currency"],
        )?;
        let loops = IntCounterVec::new(
            Opts::new("mcp_pod_loops_total", "Calls in loops by what was done about them (docs/loops.md)"),
            &["tenant", "principal", "server", "mode", "action"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "mcp_server_operation_duration_seconds",
                "From the head of a request to the end of its answer (OpenTelemetry mcp.server.operation.duration)",
            )
            .buckets(SECONDS.to_vec()),
            &["server", "mcp_method_name", "gen_ai_tool_name", "mcp_protocol_version", "error_type"],
        )?;
        let generation = IntGaugeVec::new(
            Opts::new("mcp_fleet_policy_generation", "The generation of the policy that this gateway enforces"),
            &["tenant"],
        )?;
        let kill_switch = IntGauge::new(
            "mcp_fleet_kill_switch",
            "1 while this gateway refuses all calls because of the kill switch",
        )?;
        let refused_connections = IntCounterVec::new(
            Opts::new("mcp_pod_connections_refused_total", "Connections of agents that were closed at once, by cause"),
            &["cause"],
        )?;
        for refusal in Refusal::ALL {
            refused_connections.with_label_values(&[refusal.as_str()]);
        }
        let stuck = IntCounterVec::new(
            Opts::new("mcp_pod_stuck_reports_total", "Reports of agents that they are stuck"),
            &["tenant", "principal", "server"],
        )?;
        let upstream_up = IntGaugeVec::new(
            Opts::new(
                "mcp_pod_upstream_up",
                "1 if the tool server answered its last request, 0 if not or if it has no address",
            ),
            &["tenant", "server"],
        )?;
        registry.register(Box::new(upstream_up.clone()))?;
        registry.register(Box::new(stuck.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(denials.clone()))?;
        registry.register(Box::new(spend.clone()))?;
        registry.register(Box::new(loops.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(generation.clone()))?;
        registry.register(Box::new(kill_switch.clone()))?;
        registry.register(Box::new(refused_connections.clone()))?;
        MemoryMetrics::register(&registry, memory)?;
        HomeMetrics::register(&registry, lease_left)?;
        PublicNameMetrics::register(&registry, names)?;
        DroppedLines::register(&registry)?;
        let breakers = BreakerMetrics::register(&registry)?;
        let forwarded = ForwardMetrics::register(&registry)?;
        Ok(Self {
            registry,
            calls,
            denials,
            spend,
            loops,
            durations,
            generation,
            kill_switch,
            refused_connections,
            stuck,
            upstream_up,
            servers: Mutex::default(),
            breakers,
            forwarded,
        })
    }

    /// Returns the registry that all metrics are in.
    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Sets the generation in force.
    pub(crate) fn set_generation(&self, tenant: &str, generation: u64) {
        self.generation.with_label_values(&[tenant]).set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// Sets whether the fleet's kill switch is on.
    pub(crate) fn set_kill_switch(&self, stopped: bool) {
        self.kill_switch.set(i64::from(stopped));
    }

    /// Counts a connection that was closed at once.
    pub(crate) fn count_refused_connection(&self, refusal: Refusal) {
        self.refused_connections.with_label_values(&[refusal.as_str()]).inc();
    }

    /// Counts a call in a loop.
    pub(crate) fn count_loop(&self, tenant: &str, principal: &str, server: &str, mode: Mode, action: LoopAction) {
        let mode = match mode {
            Mode::Enforce => "enforce",
            Mode::Monitor => "monitor",
            Mode::Disabled => return,
        };
        self.loops.with_label_values(&[tenant, principal, server, mode, action.as_str()]).inc();
    }

    /// Counts a request that was denied or failed.
    pub(crate) fn count_denial(&self, subject: &Subject<'_>, reason: Reason) {
        self.denials.with_label_values(&[&*subject.tenant, subject.server.known(), reason.as_str()]).inc();
    }

    /// Counts a call that has no [`ToolMetrics`], because the tool is built in, is not granted or does not exist.
    pub(crate) fn count_call(&self, subject: &Subject<'_>, decision: Decision) {
        self.calls(subject, decision).inc();
    }

    /// Replaces what is known about the servers of the tenant. A server that is not known to be up or down has no series.
    pub(crate) fn set_upstreams<'a>(&self, tenant: &str, servers: impl Iterator<Item = (&'a str, Option<bool>)>) {
        let known: Vec<_> = servers.collect();
        let mut shown = self.servers.lock();
        for server in std::mem::take(&mut *shown)
            .into_iter()
            .filter(|server| !known.iter().any(|(name, up)| name == server && up.is_some()))
        {
            let _ = self.upstream_up.remove_label_values(&[tenant, &*server]);
        }
        for (server, up) in known.into_iter().filter_map(|(server, up)| Some((server, up?))) {
            self.upstream_up.with_label_values(&[tenant, server]).set(i64::from(up));
            shown.push(server.to_owned());
        }
    }

    /// Counts a report of a stuck agent on the endpoint of a server.
    pub(crate) fn count_stuck(&self, tenant: &str, principal: &str, server: &str) {
        self.stuck.with_label_values(&[tenant, principal, server]).inc();
    }

    /// Records how long a request took, unless its method is not offered. `error` is absent if it was answered.
    pub(crate) fn observe_duration(
        &self,
        subject: &Subject<'_>,
        revision: Option<Revision>,
        error: Option<ErrorType>,
        duration: Duration,
    ) {
        if !subject.method.known().is_empty() {
            self.duration(subject, revision, error).observe(duration.as_secs_f64());
        }
    }

    fn calls(&self, subject: &Subject<'_>, decision: Decision) -> IntCounter {
        let Subject { tenant, principal, server, tool, .. } = subject;
        self.calls.with_label_values(&[&**tenant, &**principal, server.known(), tool.known(), decision.as_str()])
    }

    fn duration(&self, subject: &Subject<'_>, revision: Option<Revision>, error: Option<ErrorType>) -> Histogram {
        let Subject { server, method, tool, .. } = subject;
        let revision = revision.map_or("", Revision::as_str);
        self.durations.with_label_values(&[
            server.known(),
            method.known(),
            tool.known(),
            revision,
            error.map_or("", ErrorType::as_str),
        ])
    }
}

/// What was done about a call in a loop, or would have been in the mode Monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoopAction {
    /// Its caller was warned.
    Warned,
    /// Its caller was warned, and has to wait before it may go on.
    Slowed,
    /// The call was refused.
    Refused,
}

impl LoopAction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Warned => "warned",
            Self::Slowed => "slowed",
            Self::Refused => "refused",
        }
    }
}

/// Series of the calls of one tool by one principal.
#[derive(Debug)]
pub(crate) struct ToolMetrics {
    allowed: IntCounter,
    denied: IntCounter,
    failed: IntCounter,
    spend: Option<Counter>,
    durations: [OnceLock<Histogram>; 3],
}

impl ToolMetrics {
    pub(crate) fn new(metrics: &Metrics, subject: &Subject<'_>, currency: Option<&str>) -> Self {
        let Subject { tenant, principal, server, tool, .. } = subject;
        let spend = |currency| {
            metrics.spend.with_label_values(&[&**tenant, &**principal, server.known(), tool.known(), currency])
        };
        Self {
            allowed: metrics.calls(subject, Decision::Allowed),
            denied: metrics.calls(subject, Decision::Denied),
            failed: metrics.calls(subject, Decision::Failed),
            spend: currency.map(spend),
            durations: Default::default(),
        }
    }

    /// Counts a call.
    pub(crate) fn count(&self, decision: Decision) {
        match decision {
            Decision::Allowed => self.allowed.inc(),
            Decision::Denied => self.denied.inc(),
            Decision::Failed => self.failed.inc(),
        }
    }

    /// Adds the cost of a call.
    pub(crate) fn add_spend(&self, cost: Micros) {
        if let Some(spend) = &self.spend
            && cost > Micros::ZERO
        {
            #[expect(clippy::cast_precision_loss, reason = "the metric is a float; the ledger has the exact sum")]
            spend.inc_by(cost.get() as f64 / 1e6);
        }
    }

    /// Records how long an allowed call took.
    pub(crate) fn observe_duration(
        &self,
        metrics: &Metrics,
        subject: &Subject<'_>,
        revision: Revision,
        duration: Duration,
    ) {
        let slot = usize::from(revision.code()) - 1;
        self.durations[slot]
            .get_or_init(|| metrics.duration(subject, Some(revision), None))
            .observe(duration.as_secs_f64());
    }
}
