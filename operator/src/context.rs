//! What the parts of one replica share.

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
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("config", &self.config).finish_non_exhaustive()
    }
}
