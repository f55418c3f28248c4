//! Step four: the tenant's namespaces as they should be.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::condition::{ConditionType, is_true};
use serde_json::Value;

use super::dereference::Found;
use super::desired::{DEPLOYMENT, Objects, gateway_certificate};
use super::validate::{CREATED_FOR, Tenant};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::settings::Settings;
use crate::controllers::manifests::tls_secret_name;
use crate::credentials::ca::{TlsSecret, ensure_tls};
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::apply::{Action, Rendered, apply, delete};
use crate::kubernetes::cache::{Key, resource_of};
use crate::kubernetes::labels;

/// What is there now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The live Deployment of the gateway.
    pub gateway: Value,
    /// The live quota of the tenant's namespace; null if there is none.
    pub quota: Value,
}

/// Brings everything of the tenant to what is wanted.
pub(crate) async fn bring(
    ctx: &Context,
    object: &MCPTenant,
    tenant: &Tenant,
    settings: &Settings,
    objects: &Objects,
    found: &Found,
) -> Result<Outcome, ReconcileError> {
    if *found == Found::Missing {
        make_namespace(ctx, tenant).await?;
        let note = format!("made the namespace {}", tenant.namespace);
        ctx.events.normal(object, "NamespaceCreated", "Create", note).await;
    }
    let settled = object.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Ready));
    apply_all(ctx, object, settled, &objects.namespaces).await?;
    apply_all(ctx, object, settled, &objects.bindings).await?;
    let known = ctx.keys.cached(&tenant.uid).is_some();
    let keys = ctx.keys.get_or_create(&tenant.name, &tenant.uid).await?;
    if !known {
        ctx.shared_state.request_compilation(&tenant.uid);
    }
    ctx.keys.restore_secret(&tenant.name, &tenant.uid, &keys).await?;
    let fences = apply_all(ctx, object, settled, &objects.fences).await?;
    let tls = TlsSecret {
        namespace: &tenant.runtime_namespace,
        name: &tls_secret_name(DEPLOYMENT),
        labels: labels::of_tenant("gateway", &tenant.name, &tenant.uid),
        request: gateway_certificate(tenant, settings),
    };
    ensure_tls(&ctx.client, &ctx.ca, &tls, Timestamp::now()).await?;
    let gateway = apply_all(ctx, object, settled, &objects.gateway).await?;
    prune(ctx, tenant, objects).await?;
    Ok(Outcome {
        gateway: live(gateway, "Deployment", &tenant.runtime_namespace),
        quota: live(fences, "ResourceQuota", &tenant.namespace),
    })
}

/// The first of a kind in a namespace; null if there is none.
fn live(objects: Vec<(&Rendered, Value)>, kind: &str, namespace: &str) -> Value {
    let is_it = |want: &Rendered| want.resource.kind == kind && want.namespace.as_deref() == Some(namespace);
    objects.into_iter().find(|(want, _)| is_it(want)).map_or(Value::Null, |(_, live)| live)
}

/// Applies objects in order, and answers how they live.
async fn apply_all<'r>(
    ctx: &Context,
    object: &MCPTenant,
    settled: bool,
    objects: &'r [Rendered],
) -> Result<Vec<(&'r Rendered, Value)>, ReconcileError> {
    let mut all = Vec::with_capacity(objects.len());
    for want in objects {
        let applied = apply(&ctx.client, want).await?;
        if settled && applied.action != Action::Nothing {
            let note = format!("{want} was deleted or changed, and is back");
            ctx.events.warning(object, "PutBack", "Apply", note).await;
        }
        all.push((want, applied.live));
    }
    Ok(all)
}

/// The tenant's own namespace is made once, and then is the tenant's.
async fn make_namespace(ctx: &Context, tenant: &Tenant) -> Result<(), ReconcileError> {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(tenant.namespace.clone()),
            labels: Some([(labels::TENANT.to_owned(), tenant.name.clone())].into()),
            annotations: Some([(CREATED_FOR.to_owned(), tenant.uid.clone())].into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let made = Api::<Namespace>::all(ctx.client.clone()).create(&params, &namespace).await;
    made.map(|_| ()).map_err(ReconcileError::api("make the tenant's namespace"))
}

/// Deletes what was once made for this tenant and is wanted no more, or was made for a server that is gone.
async fn prune(ctx: &Context, tenant: &Tenant, objects: &Objects) -> Result<(), ReconcileError> {
    let wanted: Vec<Key> = objects
        .all()
        .map(|object| Key {
            kind: object.resource.kind.clone(),
            namespace: object.namespace.clone().unwrap_or_default(),
            name: object.name.clone(),
        })
        .collect();
    let ours = ctx.cache.owned.with_label(labels::TENANT_UID, &tenant.uid);
    let ours = ours.into_iter().filter(|(key, _)| is_place_of_ours(key, &tenant.namespace, &tenant.runtime_namespace));
    for (key, meta) in ours {
        let orphan = match meta.labels.get(labels::SERVER_UID) {
            Some(server) => !ctx.cache.has_server(server),
            None => !wanted.contains(&key),
        };
        let Some(resource) = orphan.then(|| resource_of(&key.kind)).flatten() else { continue };
        tracing::info!(kind = key.kind, namespace = key.namespace, name = key.name, "deleting an orphan");
        delete(&ctx.client, &resource, Some(&key.namespace), &key.name, Some(&meta.uid)).await?;
    }
    Ok(())
}

/// Deletes the quota of the tenant's namespace, so that it is made anew and counted.
pub(super) async fn drop_quota(ctx: &Context, tenant: &Tenant, quota: &Value) -> Result<(), ReconcileError> {
    let text = |field: &str| quota["metadata"][field].as_str();
    let Some((name, resource)) = text("name").zip(resource_of("ResourceQuota")) else { return Ok(()) };
    tracing::info!(namespace = tenant.namespace, "making the quota anew, so that it is counted");
    delete(&ctx.client, &resource, Some(&tenant.namespace), name, text("uid")).await?;
    Ok(())
}

/// Whether we make objects of that kind in that namespace. Labels alone say nothing: anybody can write them, on objects
/// that we may not touch.
pub(super) fn is_place_of_ours(key: &Key, namespace: &str, runtime_namespace: &str) -> bool {
    key.namespace == runtime_namespace
        || (key.namespace == namespace && matches!(key.kind.as_str(), "ResourceQuota" | "RoleBinding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_on_an_object_of_the_tenants_own_do_not_make_it_ours() {
        let is_ours = |kind: &str, namespace: &str| {
            let key = Key { kind: kind.into(), namespace: namespace.into(), name: "x".into() };
            is_place_of_ours(&key, "acme", "acme-mcp")
        };
        assert!(
            is_ours("Deployment", "acme-mcp") && is_ours("ResourceQuota", "acme") && is_ours("RoleBinding", "acme")
        );
        assert!(!is_ours("Deployment", "acme") && !is_ours("Service", "acme") && !is_ours("RoleBinding", "elsewhere"));
    }

    #[test]
    fn everything_that_is_rendered_has_a_place() {
        let tenant = crate::controllers::tenant::tests::checked();
        let objects = crate::controllers::tenant::desired::desired(&tenant, &Settings::example()).unwrap();
        for object in objects.all() {
            let Some(namespace) = object.namespace.clone() else { continue };
            let key = Key { kind: object.resource.kind.clone(), namespace, name: object.name.clone() };
            assert!(is_place_of_ours(&key, "acme", "acme-mcp"), "{object}");
        }
    }
}
