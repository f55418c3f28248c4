//! The volume claim of a workspace: which claim a server uses, and what becomes of it when the server is deleted.
//!
//! No `StatefulSet` owns the claim, so deleting one keeps the data. Only the teardown deletes a claim, if `retain` is
//! Delete. The name of a new claim contains the server's UID, so a later server of the same name does not mount the claim
//! by accident. [`choose`] decides whether it gets a retained one.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ApiResource, ListParams, Patch, PatchParams};
use mcp_fleet_core::labels;
use mcp_fleet_crds::server::AccessMode;
use mcp_fleet_crds::tenant::Reattach;
use serde_json::{Value, json};

use super::validate::object_name;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::identity::ObjectId;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::deletion::{ProvenUnwanted, delete};

/// What exists for the workspace of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Name of the claim template in the server's `StatefulSet`, which Kubernetes never lets change.
    pub template: Option<String>,
    /// Size in that template.
    pub storage: Option<Quantity>,
    /// StorageClass in that template.
    pub class: Option<String>,
    /// Claims of servers of this name. Not read if there is a `StatefulSet`.
    pub claims: Vec<ObjectMeta>,
}

impl Found {
    /// Whether the workspace of a server was made with this StorageClass, or its claim was already made with any.
    pub(super) fn has_class(&self, id: &ObjectId, class: &str) -> bool {
        let is_own = |claim: &ObjectMeta| {
            claim.deletion_timestamp.is_none() && label(claim, labels::SERVER_UID) == Some(&id.uid)
        };
        self.class.as_deref() == Some(class) || self.template.is_none() && self.claims.iter().any(is_own)
    }
}

/// The volume of a workspace, as it is mounted.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    /// Where the program sees it.
    pub mount_path: String,
    /// Size of a new claim.
    pub storage: Quantity,
    /// Size that the spec asks for, if that is another one.
    pub wanted: Option<Quantity>,
    pub storage_class: Option<String>,
    pub access_mode: AccessMode,
    /// Which claim it is.
    pub claim: Choice,
}

/// Which claim a server uses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// Name of the claim template, the first part of the claim's name.
    pub template: String,
    /// The retained claim of a former server that becomes this server's.
    pub reattached: Option<ObjectMeta>,
}

/// Reads what exists for the workspace of a server in its runtime namespace.
pub(super) async fn read(ctx: &Context, runtime: &str, id: &ObjectId) -> Result<Found, ReconcileError> {
    let sets: Api<StatefulSet> = Api::namespaced(ctx.client.clone(), runtime);
    let set = sets.get_opt(&object_name(&id.name)).await.map_err(ReconcileError::api("read the StatefulSet"))?;
    let set = set.filter(|set| label(&set.metadata, labels::SERVER_UID) == Some(&id.uid));
    let template = set.and_then(|set| set.spec?.volume_claim_templates?.into_iter().next());
    if let Some(PersistentVolumeClaim { metadata: ObjectMeta { name: Some(name), .. }, spec, .. }) = template {
        let spec = spec.unwrap_or_default();
        let requests = spec.resources.and_then(|resources| resources.requests);
        let storage = requests.and_then(|mut requests| requests.remove("storage"));
        return Ok(Found { template: Some(name), storage, class: spec.storage_class_name, claims: vec![] });
    }
    Ok(Found { claims: list(ctx, runtime, labels::SERVER, &id.name).await?, ..Found::default() })
}

/// Chooses the claim of a server: the one it has, or else a retained one if the tenant allows that, or else a new one. Of
/// several retained claims it is the one that was retained last. Pure.
pub(super) fn choose(id: &ObjectId, found: &Found, reattach: Reattach) -> Choice {
    let usable = || {
        let claims = found.claims.iter().filter(|claim| claim.deletion_timestamp.is_none());
        claims.filter_map(|claim| Some((template_of(claim, &id.name)?, claim)))
    };
    let own = || usable().find(|(_, claim)| label(claim, labels::SERVER_UID) == Some(&id.uid));
    let since = |claim: &ObjectMeta| label(claim, labels::RETAINED_SINCE).cloned();
    let retained = || usable().filter(|(_, claim)| since(claim).is_some()).max_by_key(|(_, claim)| since(claim));
    if let Some(template) = found.template.clone().or_else(|| own().map(|(template, _)| template)) {
        return Choice { template, reattached: None };
    }
    match retained().filter(|_| reattach == Reattach::SameName) {
        Some((template, claim)) => Choice { template, reattached: Some(claim.clone()) },
        None => Choice { template: format!("workspace-{}", id.uid), reattached: None },
    }
}

/// Gives a retained claim to a server. Fails with a conflict if the claim changed since it was read.
pub(super) async fn reattach(
    ctx: &Context,
    runtime: &str,
    id: &ObjectId,
    claim: &ObjectMeta,
) -> Result<(), ReconcileError> {
    let labels = json!({labels::SERVER_UID: id.uid, labels::RETAINED_SINCE: null});
    patch(ctx, runtime, claim, json!({"labels": labels})).await
}

/// Returns the claims that belong to the server with a UID.
pub(crate) async fn claims_of(ctx: &Context, runtime: &str, uid: &str) -> Result<Vec<ObjectMeta>, ReconcileError> {
    list(ctx, runtime, labels::SERVER_UID, uid).await
}

/// Marks the claims of a deleted server as retained, so that they are recognisable. Returns the names of those that were
/// not marked before.
pub(crate) async fn retain(
    ctx: &Context,
    runtime: &str,
    proof: &ProvenUnwanted,
    now: Timestamp,
) -> Result<Vec<String>, ReconcileError> {
    let mut retained = Vec::new();
    for claim in claims_of(ctx, runtime, proof.owner_uid()).await? {
        let is_marked = label(&claim, labels::RETAINED_SINCE).is_some();
        if is_marked && claim.owner_references.as_ref().is_none_or(Vec::is_empty) {
            continue;
        }
        let since = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        // The StatefulSet of an earlier operator owns the claim, which would be deleted with it.
        let mut metadata = json!({"ownerReferences": null});
        if !is_marked {
            metadata["labels"] = json!({labels::RETAINED_SINCE: since});
            retained.extend(claim.name.clone());
        }
        patch(ctx, runtime, &claim, metadata).await?;
    }
    Ok(retained)
}

/// Deletes the claims of a deleted server.
pub(super) async fn discard(ctx: &Context, runtime: &str, proof: &ProvenUnwanted) -> Result<(), ReconcileError> {
    let resource = ApiResource::erase::<PersistentVolumeClaim>(&());
    for claim in claims_of(ctx, runtime, proof.owner_uid()).await? {
        let (name, uid) = (claim.name.unwrap_or_default(), claim.uid);
        tracing::info!(claim = name, "deleting the workspace of a deleted server");
        delete(&ctx.client, proof, &resource, Some(runtime), &name, uid.as_deref()).await?;
    }
    Ok(())
}

async fn list(ctx: &Context, runtime: &str, key: &str, value: &str) -> Result<Vec<ObjectMeta>, ReconcileError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), runtime);
    let found = api.list_metadata(&ListParams::default().labels(&format!("{key}={value}"))).await;
    let found = found.map_err(ReconcileError::api("list the volume claims"))?;
    Ok(found.items.into_iter().map(|claim| claim.metadata).collect())
}

async fn patch(ctx: &Context, runtime: &str, claim: &ObjectMeta, mut metadata: Value) -> Result<(), ReconcileError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), runtime);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    metadata["resourceVersion"] = json!(claim.resource_version);
    let name = claim.name.as_deref().unwrap_or_default();
    let patched = api.patch_metadata(name, &params, &Patch::Merge(json!({"metadata": metadata}))).await;
    patched.map(|_| ()).map_err(ReconcileError::api("mark a volume claim"))
}

/// Returns the name of the template that a claim of a server was made from; none if the name is not that of such a claim.
fn template_of(claim: &ObjectMeta, server: &str) -> Option<String> {
    let name = claim.name.as_deref()?.strip_suffix("-0")?;
    Some(name.strip_suffix(&object_name(server))?.strip_suffix('-')?.to_owned())
}

fn label<'m>(metadata: &'m ObjectMeta, key: &str) -> Option<&'m String> {
    metadata.labels.as_ref()?.get(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ObjectId {
        ObjectId { name: "files".into(), uid: "s-2".into() }
    }

    fn claim(name: &str, uid: &str, retained: Option<&str>) -> ObjectMeta {
        let mut labels = labels::of_tenant("server", "acme", "u-1");
        labels.insert(labels::SERVER_UID.into(), uid.into());
        labels.extend(retained.map(|since| (labels::RETAINED_SINCE.to_owned(), since.to_owned())));
        ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() }
    }

    fn template(found: &Found, reattach: Reattach) -> String {
        choose(&id(), found, reattach).template
    }

    #[test]
    fn a_new_server_gets_a_retained_claim_only_if_the_tenant_allows_it() {
        let old = claim("workspace-s-1-mcp-files-0", "s-1", Some("20261101T000000Z"));
        let older = claim("workspace-s-0-mcp-files-0", "s-0", Some("20261001T000000Z"));
        let found = Found { claims: vec![old.clone(), older], ..Found::default() };
        assert_eq!(template(&found, Reattach::Never), "workspace-s-2");
        let choice = choose(&id(), &found, Reattach::SameName);
        assert_eq!((choice.template.as_str(), choice.reattached), ("workspace-s-1", Some(old)));
    }

    #[test]
    fn a_claim_that_still_belongs_to_another_server_is_never_taken() {
        let found = Found { claims: vec![claim("workspace-s-1-mcp-files-0", "s-1", None)], ..Found::default() };
        assert_eq!(template(&found, Reattach::SameName), "workspace-s-2");
    }

    #[test]
    fn a_server_keeps_its_claim_whatever_the_tenant_allows_later() {
        let retained = claim("workspace-s-1-mcp-files-0", "s-1", Some("20261101T000000Z"));
        let own = claim("workspace-s-0-mcp-files-0", "s-2", None);
        let found = Found { claims: vec![retained.clone(), own], ..Found::default() };
        assert_eq!(template(&found, Reattach::SameName), "workspace-s-0");
        // The StatefulSet of an earlier version of the operator.
        let found = Found { template: Some("workspace".into()), claims: vec![retained], ..Found::default() };
        assert_eq!(template(&found, Reattach::SameName), "workspace");
    }

    #[test]
    fn a_claim_that_is_being_deleted_or_has_another_name_is_not_used() {
        let mut going = claim("workspace-s-1-mcp-files-0", "s-1", Some("20261101T000000Z"));
        let other = claim("workspace-s-1-mcp-my-files-0", "s-1", Some("20261101T000000Z"));
        assert_eq!(template_of(&going, "files").as_deref(), Some("workspace-s-1"));
        going.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        let found = Found { claims: vec![going, other], ..Found::default() };
        assert_eq!(template(&found, Reattach::SameName), "workspace-s-2");
    }
}
