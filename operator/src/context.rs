//! What the parts of one replica share.

use std::sync::Arc;

use kube::Client;
use mcp_fleet_core::control_server::Hub;
use mcp_fleet_core::credentials::ca::Authority;
use mcp_fleet_core::shared_state::SharedState;

use crate::audit::Checkpoints;
use crate::config::Config;
use crate::controllers::Declared;
use crate::credentials::revocation::Revocations;
use crate::credentials::tokens::KeyStore;
use crate::gateways::Pods;
use crate::kubernetes::cache::Cache;
use crate::kubernetes::events::Events;
use crate::kubernetes::leader::Leadership;
use crate::rollout::Rollout;
use crate::server_reports::ServerReports;
use crate::telemetry::Metrics;

/// Clients, caches and state that the controllers, the policy publisher and the control server of one replica share.
#[derive(Clone)]
pub(crate) struct Context {
    /// Client of the API server.
    pub client: Client,
    pub config: Arc<Config>,
    /// Certificate authority, the same on all replicas.
    pub ca: Arc<Authority>,
    /// Signing and session keys of the tenants.
    pub keys: KeyStore,
    /// Revocations that are in force.
    pub revocations: Revocations,
    pub cache: Cache,
    pub events: Events,
    /// Results of the compiler and the control server, which status shows.
    pub shared_state: Arc<SharedState>,
    /// Whether this replica leads.
    pub leadership: Leadership,
    pub metrics: Metrics,
    pub rollout: Arc<Rollout>,
    /// What this replica has applied.
    pub declared: Arc<Declared>,
    /// The ends of the audit logs of gateways.
    pub audit: Checkpoints,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Context {
    /// Returns what control streams need of this replica.
    pub(crate) fn hub(&self) -> Hub {
        Hub {
            shared_state: Arc::clone(&self.shared_state),
            gateways: Arc::new(Pods { client: self.client.clone(), cache: self.cache.clone() }),
            alarms: Arc::new(self.events.clone()),
            audit: Some(Arc::new(self.audit.clone())),
            reports: Some(Arc::new(ServerReports::new(self.client.clone(), self.cache.clone()))),
        }
    }
}

/// Returns the rollout that the flags ask for.
pub(crate) fn rollout(config: &Config, metrics: &Metrics) -> prometheus::Result<Rollout> {
    Rollout::new(&config.mcp_pod_image, config.rollout_max_unavailable, config.rollout_paused, &metrics.registry)
}

#[cfg(test)]
impl Context {
    /// Returns a context with a filled cache, for tests. The watches run until the task is aborted.
    pub(crate) async fn of_client(client: Client) -> (Self, tokio::task::JoinHandle<()>) {
        use clap::Parser as _;
        let config = Config::parse_from(["operator", "--mcp-pod-image=mcp-pod:dev"]);
        let (certificate, key) = Authority::generate(jiff::Timestamp::now()).unwrap();
        let metrics = Metrics::new().unwrap();
        let (cache, watches) = crate::kubernetes::cache::start(&client);
        let watches = tokio::spawn(watches);
        let filled = tokio::time::timeout(crate::kubernetes::cache::testing::PATIENCE, cache.wait_until_filled()).await;
        assert!(filled.expect("the cache was not filled"));
        let ctx = Self {
            ca: Arc::new(Authority::from_pem(&certificate, &key).unwrap()),
            keys: KeyStore::new(client.clone(), &config.namespace),
            revocations: Revocations::new(client.clone(), &config.namespace),
            events: Events::new(client.clone(), &config.pod_name),
            shared_state: Arc::default(),
            cache,
            leadership: Leadership::channel().1,
            rollout: Arc::new(rollout(&config, &metrics).unwrap()),
            audit: Checkpoints::new(client.clone(), &config.namespace, &metrics.registry).unwrap(),
            metrics,
            declared: Arc::default(),
            client,
            config: Arc::new(config),
        };
        (ctx, watches)
    }
}
