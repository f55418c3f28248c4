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
use crate::kubernetes::cache::{Cache, Change, in_namespace, only, with_uid};
use crate::shared_state::StateChange;
use crate::shared_state::verdict::Kind;
use status::Facts;

/// Reconciles scopes: their status is all there is to do.
#[derive(Debug)]
pub(crate) struct Scopes;

impl Controller for Scopes {
    type Kind = MCPScope;
    const NAME: &'static str = "scope";

    fn store(cache: &Cache) -> Store<MCPScope> {
        cache.scopes.clone()
    }

    fn concerned(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPScope>> {
        match change {
            Change::Scope(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.scopes, name),
            Change::Namespace(namespace) => in_namespace(&cache.scopes, namespace),
            _ => Vec::new(),
        }
    }

    fn told(cache: &Cache, change: &StateChange) -> Vec<ObjectRef<MCPScope>> {
        match change {
            StateChange::Tenant(uid) => cache.of_tenant_with_uid(&cache.scopes, uid),
            StateChange::Verdict(Kind::Scope, uid) => only(with_uid(&cache.scopes, uid)),
            StateChange::Verdict(..) => Vec::new(),
        }
    }

    async fn reconcile(object: Arc<MCPScope>, ctx: Arc<Context>) -> Result<Option<Duration>, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let namespace = object.namespace().unwrap_or_default();
        let tenant = ctx.cache.tenant_of_namespace(&namespace).and_then(|tenant| tenant.uid());
        let (state, verdict);
        let facts = match tenant {
            None => Facts::Unclaimed,
            Some(tenant_uid) => {
                state = ctx.shared_state.tenant_state(&tenant_uid);
                verdict = ctx.shared_state.verdict(Kind::Scope, &object.uid().unwrap_or_default());
                Facts::Claimed { state: &state, verdict: verdict.as_ref() }
            }
        };
        let next = status::status(&object, &facts, Timestamp::now());
        let api: Api<MCPScope> = Api::namespaced(ctx.client.clone(), &namespace);
        written::publish(&ctx, &api, &object, next).await?;
        Ok(None)
    }
}
