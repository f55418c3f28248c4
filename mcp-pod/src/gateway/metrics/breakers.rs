//! The circuit breakers, as metrics.

use mcp_fleet_policy::breaker::{BreakerState, Changes, Swept, ToolKey};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::gateway::audit::Subject;

/// The metrics `mcp_pod_breaker_state` and `mcp_pod_breaker_transitions_total`.
#[derive(Debug)]
pub(crate) struct BreakerMetrics {
    state: IntGaugeVec,
    transitions: IntCounterVec,
}

impl BreakerMetrics {
    /// Registers the metrics.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let state = IntGaugeVec::new(
            Opts::new(
                "mcp_pod_breaker_state",
                "The breaker that all callers of a tool share: 0 closed, 1 half-open, 2 open; absent while nothing failed",
            ),
            &["tenant", "server", "tool"],
        )?;
        let transitions = IntCounterVec::new(
            Opts::new("mcp_pod_breaker_transitions_total", "Changes of breakers by their new state"),
            &["tenant", "server", "tool", "breaker", "state"],
        )?;
        registry.register(Box::new(state.clone()))?;
        registry.register(Box::new(transitions.clone()))?;
        Ok(Self { state, transitions })
    }

    /// Counts changes that a call made.
    pub(crate) fn count(&self, subject: &Subject<'_>, changes: Changes) {
        let Changes { own, shared } = changes;
        let Subject { tenant, server, tool, .. } = subject;
        let labels = [&**tenant, server.known(), tool.known()];
        if let Some(state) = own {
            self.transition(labels, "own", state);
        }
        if let Some(state) = shared {
            self.transition(labels, "shared", state);
            self.state.with_label_values(&labels).set(value(state));
        }
    }

    /// Counts a breaker that a person closed.
    pub(crate) fn cleared(&self, tenant: &str, tool: &ToolKey, changes: Changes) {
        if let Some(state) = changes.own {
            self.transition([tenant, &*tool.server, &*tool.tool], "own", state);
        }
    }

    /// Counts what time did to the shared breaker of a tool. A breaker that has no state any more has no series.
    pub(crate) fn swept(&self, tenant: &str, tool: &ToolKey, swept: Swept) {
        let labels = [tenant, &*tool.server, &*tool.tool];
        match swept {
            Swept::HalfOpened => {
                self.transition(labels, "shared", BreakerState::HalfOpen);
                self.state.with_label_values(&labels).set(value(BreakerState::HalfOpen));
            }
            Swept::Forgotten { closed } => {
                if closed {
                    self.transition(labels, "shared", BreakerState::Closed);
                }
                // There is nothing to remove if the breaker was always closed.
                let _ = self.state.remove_label_values(&labels);
            }
        }
    }

    fn transition(&self, [tenant, server, tool]: [&str; 3], breaker: &str, state: BreakerState) {
        self.transitions.with_label_values(&[tenant, server, tool, breaker, state.as_str()]).inc();
    }
}

const fn value(state: BreakerState) -> i64 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}
