//! A context whose cache and API server a test fills.

use std::sync::Arc;

use clap::Parser as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{ObjectMeta, PartialObjectMeta};
use mcp_fleet_core::credentials::ca::Authority;
use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::shared_state::SharedState;
use mcp_fleet_crds::{MCPServer, MCPTenant};
use serde_json::json;
use tokio::sync::watch;

use super::{FakeApi, Write};
use crate::audit::Checkpoints;
use crate::config::Config;
use crate::context::{Context, rollout};
use crate::controllers::Controller;
use crate::credentials::revocation::Revocations;
use crate::credentials::tokens::KeyStore;
use crate::kubernetes::cache::{Cache, CacheWriters, Key, Meta, OPERATOR_BINDING, Version};
use crate::kubernetes::events::Events;
use crate::kubernetes::leader::Leadership;
use crate::telemetry::Metrics;

/// A context for reconciles, its fake API server, and the writers of its cache.
pub(crate) struct TestContext {
    pub ctx: Arc<Context>,
    pub api: FakeApi,
    pub(super) writers: CacheWriters,
    /// Makes this replica the leader.
    pub(super) elected: watch::Sender<Option<u64>>,
}

impl TestContext {
    /// Returns a context with an empty cache and an empty API server.
    pub(crate) fn new() -> Self {
        let api = FakeApi::default();
        let client = api.client();
        let config = Config::parse_from([
            "operator",
            "--mcp-pod-image=mcp-fleet.local/mcp-pod:dev",
            "--service-address=10.96.0.77",
        ]);
        let metrics = Metrics::new().unwrap();
        let (certificate, key) = Authority::generate(Timestamp::now()).unwrap();
        let (cache, writers) = Cache::writable();
        let (elected, leadership) = Leadership::channel();
        let ctx = Context {
            ca: Arc::new(Authority::from_pem(&certificate, &key).unwrap()),
            keys: KeyStore::new(client.clone(), &config.namespace),
            revocations: Revocations::new(client.clone(), &config.namespace),
            events: Events::new(client.clone(), &config.pod_name),
            shared_state: Arc::new(SharedState::default()),
            cache,
            leadership,
            rollout: Arc::new(rollout(&config, &metrics).unwrap()),
            audit: Checkpoints::new(client.clone(), &config.namespace, &metrics.registry).unwrap(),
            metrics,
            declared: Arc::default(),
            client,
            config: Arc::new(config),
        };
        Self { ctx: Arc::new(ctx), api, writers, elected }
    }

    /// Returns the context of the next leader, which knows nothing. The API server is the same.
    pub(crate) fn restarted(self) -> Self {
        let (cache, writers) = Cache::writable();
        let ctx = Context { declared: Arc::default(), cache, ..(*self.ctx).clone() };
        Self { ctx: Arc::new(ctx), writers, ..self }
    }

    /// Returns the context of the next leader, which has another image of `mcp-pod`.
    pub(crate) fn upgraded(self, image: &str) -> Self {
        self.configured(|config| image.clone_into(&mut config.mcp_pod_image))
    }

    /// Returns the context of the next leader, which has other flags.
    pub(crate) fn configured(self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = (*self.ctx.config).clone();
        change(&mut config);
        let metrics = Metrics::new().unwrap();
        let ctx = Context {
            rollout: Arc::new(rollout(&config, &metrics).unwrap()),
            declared: Arc::default(),
            config: Arc::new(config),
            ..(*self.ctx).clone()
        };
        Self { ctx: Arc::new(ctx), ..self }
    }

    /// Puts a tenant into the cache, with both of its namespaces prepared.
    pub(crate) fn add_tenant(&mut self, tenant: &MCPTenant) {
        let (name, uid) = (tenant.metadata.name.clone().unwrap(), tenant.metadata.uid.clone().unwrap());
        let runtime = tenant.runtime_namespace();
        self.add_namespace(&tenant.spec.namespace.name, &[(labels::TENANT.to_owned(), name.clone())].into());
        self.add_namespace(&runtime, &labels::of_tenant("runtime", &name, &uid));
        for namespace in [&tenant.spec.namespace.name, &runtime] {
            self.add_owned("RoleBinding", namespace, OPERATOR_BINDING, labels::of_tenant("access", &name, &uid));
        }
        self.add_owned("NetworkPolicy", &runtime, "default-deny", labels::of_tenant("network", &name, &uid));
        self.writers.tenants.put(tenant.clone());
    }

    /// Puts a server into the cache.
    pub(crate) fn add_server(&mut self, server: &MCPServer) {
        self.writers.servers.put(server.clone());
    }

    /// Puts an object into the cache's index of objects that the operator made.
    #[allow(clippy::needless_pass_by_value, reason = "callers make the labels for this call")]
    pub(crate) fn add_owned(&self, kind: &str, namespace: &str, name: &str, labels: Labels) {
        let key = Key { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let uid = format!("uid-of-{name}");
        let version = Version::of(&ObjectMeta { uid: Some(uid.clone()), ..ObjectMeta::default() }, "");
        self.ctx.cache.owned.put(key, Meta { uid, labels: Arc::new((&labels).into()) }, version, None);
    }

    /// Has the watch show one of the Secrets that the API server holds.
    pub(crate) fn show_secret(&self, path: &str) {
        let secret = self.api.get(path).expect("there is no such Secret");
        let namespace = secret["metadata"]["namespace"].as_str().unwrap().to_owned();
        self.ctx.cache.secrets.show(&namespace, &serde_json::from_value(secret).unwrap());
    }

    /// Reconciles an object. Returns what that wrote, except Events.
    pub(crate) async fn reconcile<C: Controller>(&self, object: &C::Kind) -> Vec<String> {
        C::reconcile(Arc::new(object.clone()), self.ctx.clone()).await.unwrap();
        self.api.take_writes().iter().map(Write::short).collect()
    }

    /// Returns status and reason of a condition that was written to the object at `path`.
    pub(crate) fn condition(&self, path: &str, kind: &str) -> (String, String) {
        let object = self.api.get(path).expect("no status was written");
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        let field = |name: &str| condition[name].as_str().unwrap().to_owned();
        (field("status"), field("reason"))
    }

    pub(super) fn add_namespace(&mut self, name: &str, labels: &Labels) {
        let value = json!({"metadata": {"name": name, "labels": labels}});
        let namespace: PartialObjectMeta<Namespace> = serde_json::from_value(value).unwrap();
        self.writers.namespaces.put(Arc::new(namespace));
    }
}
