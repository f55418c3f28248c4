//! Applies objects as a whole.
//!
//! Server-side apply alone keeps what others added, such as another container or port. So the live object is compared as a
//! whole: if another manager owns any part of its specification, the object is replaced instead of merged. An object that
//! is already as wanted costs one read and no write, or no request at all if nobody changed it since it was written or read
//! last ([`apply_indexed`]). The decision is in [`compare`].
//!
//! A new object is created, and not applied: only that fails if someone else made an object of that name meanwhile. Its
//! fields then have no manager that could apply it, so it is later replaced as a whole.

mod compare;
mod rendered;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Knowledge, Owned, Version, Workload};

pub(crate) use compare::{Action, can_become, decide, is_foreign};
pub(crate) use rendered::Rendered;

/// Annotation with the digest of the object that was applied last.
pub(crate) const APPLIED: &str = "mcp-fleet.dev/applied";

/// Why an object could not be applied or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API server rejected the request or could not be reached.
    #[error("failed to {verb} {object}")]
    Api {
        /// What was tried, for example "read".
        verb: &'static str,
        /// Kind, namespace and name.
        object: String,
        source: kube::Error,
    },
    /// An object of that name exists and was made by someone else or for another owner.
    #[error("{object} exists and was not made by MCP Fleet for this owner; delete or rename it")]
    NotOurs {
        /// Kind, namespace and name.
        object: String,
    },
    /// An object could not be converted to or from JSON.
    #[error("failed to render an object")]
    Render(#[from] serde_json::Error),
}

/// The result of applying one object.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// The object as the API server holds it now.
    pub live: Value,
    /// What had to be done.
    pub action: Action,
    /// Whether the same declaration was the last one that an operator applied. Then a difference is someone else's doing,
    /// and not that of a new version of the operator, which declares the object in another way.
    pub was_applied_last: bool,
}

impl Applied {
    /// An object that is known to be as wanted, and was not read.
    fn unchanged(workload: Option<Workload>) -> Self {
        let live = workload.as_ref().map(Workload::live).unwrap_or_default();
        Self { live, action: Action::Nothing, was_applied_last: true }
    }
}

/// Applies one object. Sends no request if the index of owned objects knows that the object is as wanted, and does not read
/// an object that does not exist. The live object then has no more than the state of a workload.
///
/// An object is read again by the next call if `is_settled` does not hold for it yet.
pub(crate) async fn apply_indexed(
    client: &Client,
    owned: &Owned<Workload>,
    wanted: &Rendered,
    is_settled: impl Fn(&Value) -> bool,
) -> Result<Applied, ApplyError> {
    let created = match owned.knowledge(&wanted.key(), wanted.digest_number()) {
        Knowledge::AsWanted(workload) => return Ok(Applied::unchanged(workload)),
        Knowledge::Missing => create(client, wanted).await?,
        Knowledge::Unknown => None,
    };
    let applied = match created {
        Some(created) => created,
        None => apply(client, wanted).await?,
    };
    if is_settled(&applied.live) {
        remember(owned, wanted, &applied.live)?;
    }
    Ok(applied)
}

/// Applies one object with [`apply_reserved`]. Sends no request if the index of owned objects knows that the object is as
/// wanted. Its kind must be one that the index watches.
pub(crate) async fn apply_reserved_indexed(
    client: &Client,
    owned: &Owned<Workload>,
    wanted: &Rendered,
) -> Result<Applied, ApplyError> {
    if let Knowledge::AsWanted(workload) = owned.knowledge(&wanted.key(), wanted.digest_number()) {
        return Ok(Applied::unchanged(workload));
    }
    let applied = apply_reserved(client, wanted).await?;
    remember(owned, wanted, &applied.live)?;
    Ok(applied)
}

/// Records in the index that an object is as wanted, as long as the watch shows no other version of it.
fn remember(owned: &Owned<Workload>, wanted: &Rendered, live: &Value) -> Result<(), ApplyError> {
    let (key, metadata) = (wanted.key(), serde_json::from_value(live["metadata"].clone())?);
    let version = match key.kind.as_str() {
        "ResourceQuota" => Version::of_quota(&metadata, live, APPLIED),
        _ => Version::of(&metadata, APPLIED),
    };
    let workload = Workload::of(&key.kind, live);
    owned.verify(key, version, wanted.digest_number(), workload);
    Ok(())
}

/// Creates an object; none if an object of that name exists. The index may lag, and it does not hold objects of others.
async fn create(client: &Client, wanted: &Rendered) -> Result<Option<Applied>, ApplyError> {
    let object: DynamicObject = serde_json::from_value(wanted.digested())?;
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    match api(client, wanted).create(&params, &object).await {
        Ok(created) => {
            Ok(Some(Applied { live: serde_json::to_value(created)?, action: Action::Create, was_applied_last: false }))
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(source) => Err(failed("create", wanted)(source)),
    }
}

/// Applies one object, if the live one differs.
pub(crate) async fn apply(client: &Client, wanted: &Rendered) -> Result<Applied, ApplyError> {
    let api = api(client, wanted);
    let live = read(&api, wanted).await?;
    if let Some(live) = &live
        && !wanted.same_owner(live)
    {
        return Err(ApplyError::NotOurs { object: wanted.to_string() });
    }
    write(&api, wanted, live).await
}

/// Applies one object whose name is reserved for the operator: an object of that name that someone else made, or that can
/// no longer be changed into the wanted one, is deleted first. Anyone who may write such objects in the namespace could
/// otherwise keep the operator out of it.
pub(crate) async fn apply_reserved(client: &Client, wanted: &Rendered) -> Result<Applied, ApplyError> {
    let api = api(client, wanted);
    let live = match read(&api, wanted).await? {
        Some(live) if !wanted.same_owner(&live) || !can_become(&live, wanted) => {
            remove(&api, wanted, &live).await?;
            None
        }
        live => live,
    };
    write(&api, wanted, live).await
}

async fn read(api: &Api<DynamicObject>, wanted: &Rendered) -> Result<Option<Value>, ApplyError> {
    let live = api.get_opt(&wanted.name).await.map_err(failed("read", wanted))?;
    Ok(live.map(serde_json::to_value).transpose()?)
}

/// Deletes an object that is in the way of the wanted one. Its finalizers go first: nobody else may decide when it ends.
async fn remove(api: &Api<DynamicObject>, wanted: &Rendered, live: &Value) -> Result<(), ApplyError> {
    tracing::warn!(object = %wanted, "deleting an object whose name is reserved for the operator");
    let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
    if live["metadata"]["finalizers"].is_array() {
        let released = json!({"metadata": {"uid": uid, "finalizers": null}});
        match api.patch(&wanted.name, &PatchParams::default(), &Patch::Merge(released)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => return Err(failed("release", wanted)(source)),
        }
    }
    let preconditions = Preconditions { uid, resource_version: None };
    match api.delete(&wanted.name, &DeleteParams::background().preconditions(preconditions)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(failed("delete", wanted)(source)),
    }
}

/// Applies an object over the live one, if they differ.
async fn write(api: &Api<DynamicObject>, wanted: &Rendered, live: Option<Value>) -> Result<Applied, ApplyError> {
    let action = decide(wanted, live.as_ref());
    let was_applied_last =
        live.as_ref().is_some_and(|live| live["metadata"]["annotations"][APPLIED] == Value::String(wanted.digest()));
    let written = match (action, live) {
        (Action::Nothing, Some(live)) => return Ok(Applied { live, action, was_applied_last }),
        (Action::Replace, Some(live)) => {
            tracing::info!(object = %wanted, "replacing an object whose specification differs");
            let object: DynamicObject = serde_json::from_value(wanted.replacing(&live))?;
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            api.replace(&wanted.name, &params, &object).await.map_err(failed("replace", wanted))?
        }
        _ => {
            tracing::debug!(object = %wanted, ?action, "applying");
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(&wanted.name, &params, &Patch::Apply(wanted.digested())).await.map_err(failed("apply", wanted))?
        }
    };
    Ok(Applied { live: serde_json::to_value(written)?, action, was_applied_last })
}

fn failed(verb: &'static str, wanted: &Rendered) -> impl Fn(kube::Error) -> ApplyError {
    let object = wanted.to_string();
    move |source| ApplyError::Api { verb, object: object.clone(), source }
}

fn api(client: &Client, wanted: &Rendered) -> Api<DynamicObject> {
    match &wanted.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &wanted.resource),
        None => Api::all_with(client.clone(), &wanted.resource),
    }
}
