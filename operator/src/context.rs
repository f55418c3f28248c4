//! What every controller is given.

use std::sync::Arc;

use kube::Client;

use crate::config::Config;
use crate::credentials::ca::Authority;
use crate::credentials::revocation::Revocations;
use crate::credentials::tokens::KeyStore;
use crate::kubernetes::cache::Cache;
use crate::kubernetes::events::Events;
use crate::kubernetes::leader::Leadership;
use crate::shared_state::SharedState;
use crate::telemetry::Metrics;

/// Shared by all controllers, the compiler and the control server of one replica.
#[derive(Clone)]
pub(crate) struct Context {
    /// The API server.
    pub client: Client,
    /// The flags.
    pub config: Arc<Config>,
    /// The certificate authority; the same on all replicas.
    pub ca: Arc<Authority>,
    /// The tenants' signing and session keys.
    pub keys: KeyStore,
    /// The revocations that were ever asked for.
    pub revocations: Revocations,
    /// What the API server holds.
    pub cache: Cache,
    /// Writes Events.
    pub events: Events,
    /// Verdicts and tenant states, from the compiler and the stream.
    pub shared_state: Arc<SharedState>,
    /// Whether this replica leads.
    pub leadership: Leadership,
    /// Metrics, and the registry to add more.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Context {
    /// Returns a context with a filled cache, for tests. The watches run until the task is aborted.
    pub(crate) async fn of_client(client: Client) -> (Self, tokio::task::JoinHandle<()>) {
        use clap::Parser as _;
        let config = Config::parse_from(["operator", "--mcp-pod-image=mcp-pod:dev"]);
        let (certificate, key) = Authority::generate(jiff::Timestamp::now()).unwrap();
        let (cache, watches) = crate::kubernetes::cache::run(&client);
        let watches = tokio::spawn(watches);
        let filled = tokio::time::timeout(std::time::Duration::from_secs(5), cache.wait_until_filled()).await;
        assert!(filled.expect("the cache was not filled"));
        let ctx = Self {
            ca: Arc::new(Authority::from_pem(&certificate, &key).unwrap()),
            keys: KeyStore::new(client.clone(), &config.namespace),
            revocations: Revocations::new(client.clone(), &config.namespace),
            events: Events::new(client.clone(), &config.pod_name),
            shared_state: Arc::default(),
            cache,
            leadership: Leadership::channel().1,
            metrics: Metrics::new().unwrap(),
            client,
            config: Arc::new(config),
        };
        (ctx, watches)
    }
}
