//! `MCPTenant`: two namespaces, their fences, and the gateway between agents and servers.

mod apply;
mod dereference;
pub(crate) mod desired;
mod quota;
mod status;
mod teardown;
pub(crate) mod validate;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPTenant;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::settings::Settings;
use crate::kubernetes::cache::{Cache, Change};
use crate::kubernetes::labels;
use crate::retry::jittered;
use crate::shared_state::StateChange;
use crate::shared_state::verdict::Kind;
use status::Judged;

/// How soon to look again at a claim that does not hold: an unlabelled namespace sends no news when it goes.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Reconciles tenants.
#[derive(Debug)]
pub(crate) struct Tenants;

impl Controller for Tenants {
    type Kind = MCPTenant;
    const NAME: &'static str = "tenant";

    fn store(cache: &Cache) -> Store<MCPTenant> {
        cache.tenants.clone()
    }

    fn concerned(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPTenant>> {
        match change {
            // Another tenant's end may settle a conflict.
            Change::Tenant(name) => cache
                .tenants
                .state_filter(|tenant| tenant.name_any() == *name || is_in_conflict(tenant))
                .iter()
                .map(|tenant| ObjectRef::from_obj(&**tenant))
                .collect(),
            Change::Namespace(name) => cache
                .tenants
                .state_filter(|tenant| tenant.spec.namespace.name == *name || tenant.runtime_namespace() == *name)
                .iter()
                .map(|tenant| ObjectRef::from_obj(&**tenant))
                .collect(),
            Change::Owned(found) => {
                let of_other = match found.get(labels::SERVER_UID) {
                    Some(server) => cache.server_by_uid(server).is_some(),
                    None => found.contains_key(labels::PRINCIPAL_UID),
                };
                let uid = found.get(labels::TENANT_UID).filter(|_| !of_other);
                uid.and_then(|uid| cache.tenant_by_uid(uid))
                    .map(|tenant| ObjectRef::from_obj(&*tenant))
                    .into_iter()
                    .collect()
            }
            _ => vec![],
        }
    }

    fn told(cache: &Cache, change: &StateChange) -> Vec<ObjectRef<MCPTenant>> {
        let (StateChange::Tenant(uid) | StateChange::Verdict(Kind::Tenant, uid)) = change else { return vec![] };
        cache.tenant_by_uid(uid).map(|tenant| ObjectRef::from_obj(&*tenant)).into_iter().collect()
    }

    async fn reconcile(object: Arc<MCPTenant>, ctx: Arc<Context>) -> Result<Option<Duration>, ReconcileError> {
        let facts = dereference::dereference(&object, &ctx).await?;
        if object.metadata.deletion_timestamp.is_some() {
            if object.finalizers().iter().any(|finalizer| finalizer == labels::FINALIZER) {
                return teardown::tear_down(&object, &facts, &ctx).await;
            }
            return Ok(None);
        }
        if crate::controllers::status::hold(&Api::<MCPTenant>::all(ctx.client.clone()), &object).await? {
            // The change that this makes brings us back with the new version.
            return Ok(None);
        }
        let tenant = match validate::validate(&object, &facts)? {
            Ok(tenant) => tenant,
            Err(refusal) => {
                status::write(&ctx, &object, &Judged::Refused(&refusal)).await?;
                return Ok(Some(jittered(LOOK_AGAIN)));
            }
        };
        let settings = Settings::load(&ctx).await?;
        let objects = desired::desired(&tenant, &settings)?;
        let brought = apply::bring(&ctx, &object, &tenant, &settings, &objects, &facts.tenant_namespace).await;
        match brought {
            Ok(outcome) => {
                let state = ctx.shared_state.tenant_state(&tenant.uid);
                let verdict = ctx.shared_state.verdict(Kind::Tenant, &tenant.uid);
                let judged = Judged::Applied {
                    tenant: &tenant,
                    gateway: &outcome.gateway,
                    quota: &outcome.quota,
                    state: &state,
                    verdict: verdict.as_ref(),
                };
                status::write(&ctx, &object, &judged).await?;
                match quota::next(&outcome.quota, Timestamp::now()) {
                    quota::Next::Rest => Ok(None),
                    quota::Next::Wait(wait) => Ok(Some(wait)),
                    quota::Next::MakeAnew => {
                        apply::drop_quota(&ctx, &tenant, &outcome.quota).await?;
                        // The next look makes it anew.
                        Ok(Some(Duration::ZERO))
                    }
                }
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

fn is_in_conflict(tenant: &MCPTenant) -> bool {
    tenant.status.as_ref().is_some_and(|status| {
        status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == "Conflicted")
    })
}

#[cfg(test)]
pub(crate) mod tests {
    //! Examples that the tests of the steps share.

    use super::dereference::{Facts, Found};
    use super::validate::{Tenant, validate};
    use super::*;

    pub(crate) fn tenant() -> MCPTenant {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
            "metadata": {"name": "acme", "uid": "u-1", "generation": 1, "creationTimestamp": "2026-11-01T00:00:00Z"},
            "spec": {
                "namespace": {"name": "acme"},
                "hard": {"pods": "20", "count/mcpservers.mcp-fleet.dev": "5"},
                "clients": [{"namespaceSelector": {"matchLabels": {"team": "acme"}}}],
                "images": {"allowed": ["registry.example.com/acme/*"]},
            },
        }))
        .unwrap()
    }

    pub(crate) fn facts() -> Facts {
        Facts {
            older_claim: None,
            tenant_namespace: Found::Missing,
            runtime_namespace: Found::Missing,
            operator_namespace: "mcp-fleet-system".into(),
        }
    }

    pub(crate) fn checked() -> Tenant {
        validate(&tenant(), &facts()).unwrap().unwrap()
    }
}
