//! `MCPScope`: what its status says. The compiler does the rest.

mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPScope;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::error::ReconcileError;
use crate::controllers::status as written;
use crate::kubernetes::cache::{Change, World, in_namespace, only, with_uid};
use crate::shared_state::ControlChange;
use crate::shared_state::verdict::Kind;
use status::Facts;

/// Reconciles scopes: their status is all there is to do.
#[derive(Debug)]
pub(crate) struct Scopes;

impl Controller for Scopes {
    type Kind = MCPScope;
    const NAME: &'static str = "scope";

    fn store(world: &World) -> Store<MCPScope> {
        world.scopes.clone()
    }

    fn concerned(world: &World, change: &Change) -> Vec<ObjectRef<MCPScope>> {
        match change {
            Change::Scope(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => world.of_tenant_named(&world.scopes, name),
            Change::Namespace(namespace) => in_namespace(&world.scopes, namespace),
            _ => Vec::new(),
        }
    }

    fn told(world: &World, change: &ControlChange) -> Vec<ObjectRef<MCPScope>> {
        match change {
            ControlChange::Tenant(uid) => world.of_tenant_with_uid(&world.scopes, uid),
            ControlChange::Verdict(Kind::Scope, uid) => only(with_uid(&world.scopes, uid)),
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
        written::publish(&ctx, &api, &object, next).await?;
        Ok(None)
    }
}
