//! Logs as JSON lines on stderr, and the metrics of the controllers.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use tracing_subscriber::EnvFilter;

/// Starts logging; `RUST_LOG` overrides the level `info`.
pub fn init() {
    // Of an answer that cannot be decoded, `kube_client::client` would log all of it at each attempt.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("info,kube_client=warn,kube_client::client=error,kube_runtime=warn,h2=warn")
    });
    // Fails if a subscriber is set already, as in tests.
    let _ = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Metrics of the controllers, and the registry of all metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Registry of everything that `/metrics` shows.
    pub registry: Registry,
    /// Number of reconciles by controller and result (`ok`, `error`).
    pub reconciles: IntCounterVec,
    /// Duration of reconciles by controller, in seconds.
    pub reconcile_seconds: HistogramVec,
    /// 1 on the replica that leads.
    pub leader: prometheus::IntGauge,
    /// How often this replica gave up the Lease because it could not prove that policies were current.
    pub leases_given_up: prometheus::IntCounter,
    /// 1 while the Secret of the certificate authority is missing or holds something else.
    pub ca_problem: prometheus::IntGauge,
    /// How often that Secret was restored from memory.
    pub ca_restores: prometheus::IntCounter,
    /// 1 on the leader while the kill switch is on.
    pub kill_switch: prometheus::IntGauge,
}

impl Metrics {
    /// Creates a registry with these metrics.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let reconciles = IntCounterVec::new(
            Opts::new("mcp_fleet_reconciles_total", "Reconciles by controller and outcome"),
            &["controller", "outcome"],
        )?;
        let reconcile_seconds = HistogramVec::new(
            HistogramOpts::new("mcp_fleet_reconcile_duration_seconds", "Seconds that a reconcile took"),
            &["controller"],
        )?;
        let leader = prometheus::IntGauge::new("mcp_fleet_leader", "1 on the replica that leads")?;
        let leases_given_up = prometheus::IntCounter::new(
            "mcp_fleet_leader_gave_up_total",
            "How often this replica gave up the Lease because policies could not be proved to be current",
        )?;
        registry.register(Box::new(leases_given_up.clone()))?;
        let ca_problem = prometheus::IntGauge::new(
            "mcp_fleet_ca_problem",
            "1 while the Secret of the certificate authority is missing or holds something else",
        )?;
        let ca_restores = prometheus::IntCounter::new(
            "mcp_fleet_ca_restores_total",
            "How often the Secret of the certificate authority was restored from memory",
        )?;
        let kill_switch = prometheus::IntGauge::new(
            "mcp_fleet_kill_switch",
            "1 on the leader while the kill switch stops all tool calls of the fleet",
        )?;
        registry.register(Box::new(kill_switch.clone()))?;
        registry.register(Box::new(ca_problem.clone()))?;
        registry.register(Box::new(ca_restores.clone()))?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self {
            registry,
            reconciles,
            reconcile_seconds,
            leader,
            leases_given_up,
            ca_problem,
            ca_restores,
            kill_switch,
        })
    }
}
