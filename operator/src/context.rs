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
