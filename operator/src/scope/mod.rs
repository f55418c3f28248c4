//! `MCPScope`: what its status says. The compiler does the rest.

mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPScope;

use crate::context::Context;
use crate::control::{ControlChange, Kind};
use crate::controller::Controller;
use crate::error::ReconcileError;
use crate::status as written;
use crate::world::{Change, World};
use status::Facts;

/// Reconciles scopes: their status is all there is to do.
#[derive(Debug)]
pub struct Scopes;

impl Controller for Scopes {
    type Kind = MCPScope;
    const NAME: &'static str = "scope";

    fn store(world: &World) -> Store<MCPScope> {
        world.scopes.clone()
    }

    fn concerned(world: &World, change: &Change) -> Vec<ObjectRef<MCPScope>> {
        match change {
            Change::Scope(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => {
                let tenant = world.tenants.get(&ObjectRef::new(name));
                tenant.map(|tenant| in_namespace(world, &tenant.spec.namespace.name)).unwrap_or_default()
            }
            Change::Namespace(namespace) => in_namespace(world, namespace),
            _ => Vec::new(),
        }
    }

    fn told(world: &World, change: &ControlChange) -> Vec<ObjectRef<MCPScope>> {
        match change {
            ControlChange::Tenant(uid) => {
                let tenant = world.tenant_by_uid(uid);
                tenant.map(|tenant| in_namespace(world, &tenant.spec.namespace.name)).unwrap_or_default()
            }
            ControlChange::Verdict(Kind::Scope, uid) => {
                let scope = world.scopes.find(|scope| scope.metadata.uid.as_ref() == Some(uid));
                scope.map(|scope| ObjectRef::from_obj(&*scope)).into_iter().collect()
            }
            ControlChange::Verdict(..) => Vec::new(),
        }
    }

    async fn reconcile(object: Arc<MCPScope>, ctx: Arc<Context>) -> Result<Option<Duration>, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let namespace = object.namespace().unwrap_or_default();
        let tenant = ctx.world.tenant_of_namespace(&namespace).and_then(|tenant| tenant.uid());
        let (state, verdict);
        let facts = match tenant {
            None => Facts::Unclaimed,
            Some(tenant_uid) => {
                state = ctx.control.tenant_state(&tenant_uid);
                verdict = ctx.control.verdict(Kind::Scope, &object.uid().unwrap_or_default());
                Facts::Claimed { state: &state, verdict: verdict.as_ref() }
            }
        };
        let next = status::status(&object, &facts, Timestamp::now());
        let api: Api<MCPScope> = Api::namespaced(ctx.client.clone(), &namespace);
        let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if written::is_premature(&ctx.control, before, &next.conditions) {
            return Ok(None);
        }
        if written::write(&api, &object, next.clone()).await? {
            written::announce(&ctx.events, &*object, before, &next.conditions).await;
        }
        Ok(None)
    }
}

fn in_namespace(world: &World, namespace: &str) -> Vec<ObjectRef<MCPScope>> {
    let scopes = world.scopes.state_filter(|scope| scope.metadata.namespace.as_deref() == Some(namespace));
    scopes.iter().map(|scope| ObjectRef::from_obj(&**scope)).collect()
}
