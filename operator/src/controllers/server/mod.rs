//! The controller of `MCPServer`: the user's program under our shim, behind a Service that only the gateway reaches.

mod apply;
mod dereference;
mod desired;
mod status;
mod teardown;
#[cfg(test)]
pub(super) mod tests;
mod validate;
pub(super) mod workspace;

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPServer;

use super::action::Action;
use super::error::ReconcileError;
use super::finalizer::with_finalizer;
use super::manifests::settings::Settings;
use super::outcome::Outcome;
use super::{Controller, affected_by_policy};
use crate::context::Context;
use crate::kubernetes::cache::{Cache, Change, Readable, in_namespace, references};
use crate::kubernetes::labels;
use crate::shared_state::StateChange;
use crate::shared_state::verdict::Kind;
use apply::apply;
use dereference::dereference;
use desired::desired;
use teardown::tear_down;
use validate::validate;

/// The controller of `MCPServer`.
#[derive(Debug)]
pub(crate) struct Servers;

impl Controller for Servers {
    type Kind = MCPServer;
    const NAME: &'static str = "server";

    fn store(cache: &Cache) -> Readable<MCPServer> {
        cache.servers.clone()
    }

    fn affected_by_change(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPServer>> {
        match change {
            Change::Server(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.servers, name),
            Change::Namespace(name) => {
                let runtime = cache.tenant_of_runtime(name);
                let namespace = runtime.map_or_else(|| name.clone(), |tenant| tenant.spec.namespace.name.clone());
                in_namespace(&cache.servers, &namespace)
            }
            Change::Owned(found) => match found.get(labels::SERVER_UID) {
                Some(uid) => references(cache.server_by_uid(uid)),
                // Servers wait for access to the runtime namespace and for its network policies.
                None if matches!(found.get(labels::COMPONENT).map(String::as_str), Some("access" | "network")) => {
                    let tenant = found.get(labels::TENANT_UID);
                    tenant.map(|uid| cache.of_tenant_with_uid(&cache.servers, uid)).unwrap_or_default()
                }
                None => vec![],
            },
            _ => vec![],
        }
    }

    fn affected_by_state(ctx: &Context, change: &StateChange) -> Vec<ObjectRef<MCPServer>> {
        affected_by_policy(ctx, &ctx.cache.servers, Kind::Server, change)
    }

    async fn reconcile(object: Arc<MCPServer>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
        let ctx = &*ctx;
        let api: Api<MCPServer> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
        let validated = validate(&object, &dereference(&object, ctx).await?);
        // Nothing was made for a server that was never accepted, so it needs no finalizer.
        let needs_finalizer = validated.is_ok() || object.metadata.deletion_timestamp.is_some();
        let reconcile = |object: Arc<MCPServer>| async move {
            let outcome = match validated {
                Ok(server) => {
                    let objects = desired(&server, &Settings::load(ctx).await?);
                    Outcome::of(apply(ctx, &object, server, &objects).await)?
                }
                Err(rejection) => Outcome::Rejected(rejection),
            };
            match status::write(ctx, &object, &outcome).await? {
                Some(pause) => Ok(Action::requeue(pause)),
                None => outcome.next(),
            }
        };
        if needs_finalizer {
            with_finalizer(&api, object, reconcile, |object| async move { tear_down(&object, ctx).await }).await
        } else {
            reconcile(object).await
        }
    }
}
