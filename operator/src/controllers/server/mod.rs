//! `MCPServer`: the user's program under our shim, behind a Service that only the gateway reaches.

mod apply;
mod dereference;
mod desired;
mod status;
mod teardown;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use mcp_fleet_crds::MCPServer;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::settings::Settings;
use crate::kubernetes::cache::{Cache, Change, in_namespace, only, tenant_of_runtime};
use crate::kubernetes::labels;
use crate::retry::jittered;
use crate::shared_state::StateChange;
use crate::shared_state::verdict::Kind;
use status::Judged;

/// How soon to look again at a server that waits for its tenant.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Reconciles servers.
#[derive(Debug)]
pub(crate) struct Servers;

impl Controller for Servers {
    type Kind = MCPServer;
    const NAME: &'static str = "server";

    fn store(cache: &Cache) -> Store<MCPServer> {
        cache.servers.clone()
    }

    fn concerned(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPServer>> {
        match change {
            Change::Server(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.servers, name),
            Change::Namespace(name) => {
                let runtime = tenant_of_runtime(name, &cache.tenants.state());
                let namespace = runtime.map_or_else(|| name.clone(), |tenant| tenant.spec.namespace.name.clone());
                in_namespace(&cache.servers, &namespace)
            }
            Change::Owned(found) => match found.get(labels::SERVER_UID) {
                Some(uid) => only(cache.server_by_uid(uid)),
                // The way into the runtime namespace and its fences: what servers wait for.
                None if matches!(found.get(labels::COMPONENT).map(String::as_str), Some("access" | "network")) => {
                    let tenant = found.get(labels::TENANT_UID);
                    tenant.map(|uid| cache.of_tenant_with_uid(&cache.servers, uid)).unwrap_or_default()
                }
                None => vec![],
            },
            _ => vec![],
        }
    }

    fn told(cache: &Cache, change: &StateChange) -> Vec<ObjectRef<MCPServer>> {
        match change {
            StateChange::Tenant(uid) => cache.of_tenant_with_uid(&cache.servers, uid),
            StateChange::Verdict(Kind::Server, uid) => only(cache.server_by_uid(uid)),
            StateChange::Verdict(..) => vec![],
        }
    }

    async fn reconcile(object: Arc<MCPServer>, ctx: Arc<Context>) -> Result<Option<Duration>, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            if object.finalizers().iter().any(|finalizer| finalizer == labels::FINALIZER) {
                return teardown::tear_down(&object, &ctx).await;
            }
            return Ok(None);
        }
        let server = match validate::validate(&object, &dereference::dereference(&object, &ctx))? {
            Ok(server) => server,
            Err(refusal) => {
                status::write(&ctx, &object, &Judged::Refused(&refusal)).await?;
                return Ok(refusal.waiting.then(|| jittered(LOOK_AGAIN)));
            }
        };
        let api =
            crate::controllers::status::namespaced::<MCPServer>(&ctx.client, &object.namespace().unwrap_or_default());
        if crate::controllers::status::hold(&api, &object).await? {
            // The change that this makes brings us back with the new version.
            return Ok(None);
        }
        let settings = Settings::load(&ctx).await?;
        let objects = desired::desired(&server, &settings);
        match apply::bring(&ctx, &object, &server, &objects).await {
            Ok(workload) => {
                let state = ctx.shared_state.tenant_state(&server.tenant_uid);
                let verdict = ctx.shared_state.verdict(Kind::Server, &server.uid);
                let judged =
                    Judged::Applied { server: &server, workload: &workload, state: &state, verdict: verdict.as_ref() };
                status::write(&ctx, &object, &judged).await?;
                Ok(None)
            }
            Err(error) if error.is_conflict() => Err(error),
            Err(error) => {
                let judged = Judged::Failed { message: error.chain(), stuck: error.is_permanent() };
                status::write(&ctx, &object, &judged).await?;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Examples that the tests of the steps share.

    use super::dereference::Facts;
    use super::validate::{Server, validate};
    use super::*;

    pub(super) fn server() -> MCPServer {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPServer",
            "metadata": {"name": "files", "namespace": "acme", "uid": "s-1", "generation": 1},
            "spec": {
                "source": {"type": "Stdio", "stdio": {
                    "image": format!("registry.example.com/acme/files@sha256:{}", "0a".repeat(32)),
                    "command": ["mcp-server-filesystem", "/workspace"],
                    "env": [{"name": "LANG", "value": "C.UTF-8"}],
                    "resources": {"limits": {"cpu": "1", "memory": "512Mi"}},
                }},
                "workspace": {"mountPath": "/workspace", "storage": "1Gi"},
                "tools": [{"name": "read_text_file", "class": "Read"}],
            },
        }))
        .unwrap()
    }

    pub(super) fn facts() -> Facts {
        Facts { tenant: Some(Arc::new(crate::controllers::tenant::tests::tenant())), prepared: true }
    }

    pub(super) fn checked() -> Server {
        validate(&server(), &facts()).unwrap().unwrap()
    }
}
