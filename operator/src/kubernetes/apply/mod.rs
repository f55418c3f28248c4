//! Brings declared objects into the cluster, and puts them back as a whole.
//!
//! Server-side apply alone leaves alone what others added (a third container, another port). So the live object is
//! compared whole: if another manager owns anything of its specification, the object is replaced, not merged. An
//! object that already is what is wanted costs one read and no write.

mod compare;
mod rendered;

pub(crate) use compare::{Action, decide};
pub(crate) use rendered::Rendered;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::Value;

use crate::kubernetes::FIELD_MANAGER;

/// The annotation that holds the digest of what was applied last.
pub(crate) const APPLIED: &str = "mcp-fleet.dev/applied";

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API server refused or could not be reached.
    #[error("failed to {verb} {object}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Kind, namespace and name.
        object: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// One of that name is there, and is not ours.
    #[error("{object} is there and was not made by MCP Fleet for this owner; delete or rename it")]
    NotOurs {
        /// Kind, namespace and name.
        object: String,
    },
    /// It could not be written as JSON.
    #[error("failed to render an object")]
    Render(#[from] serde_json::Error),
}

/// An object as it is now, and whether it had to be written.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// The live object.
    pub live: Value,
    /// Why it was written, if it was.
    pub action: Action,
}

/// Brings one object to what is wanted.
pub(crate) async fn apply(client: &Client, want: &Rendered) -> Result<Applied, ApplyError> {
    let api = api(client, want);
    let failed = |verb| move |source| ApplyError::Api { verb, object: want.to_string(), source };
    let live = api.get_opt(&want.name).await.map_err(failed("read"))?;
    let live = live.map(serde_json::to_value).transpose()?;
    if let Some(live) = &live
        && !want.same_owner(live)
    {
        return Err(ApplyError::NotOurs { object: want.to_string() });
    }
    let action = decide(want, live.as_ref());
    let written = match (action, live) {
        (Action::Nothing, Some(live)) => return Ok(Applied { live, action }),
        (Action::Replace, Some(live)) => {
            tracing::info!(object = %want, "putting back what others changed");
            let object: DynamicObject = serde_json::from_value(want.replacing(&live))?;
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            api.replace(&want.name, &params, &object).await.map_err(failed("replace"))?
        }
        _ => {
            tracing::debug!(object = %want, ?action, "applying");
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(&want.name, &params, &Patch::Apply(want.digested())).await.map_err(failed("apply"))?
        }
    };
    Ok(Applied { live: serde_json::to_value(written)?, action })
}

/// Deletes an object by name; one that is not there is fine. Answers whether it was there. With a UID only that very
/// object is deleted.
pub(crate) async fn delete(
    client: &Client,
    resource: &kube::api::ApiResource,
    namespace: Option<&str>,
    name: &str,
    uid: Option<&str>,
) -> Result<bool, ApplyError> {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let mut params = DeleteParams::background();
    if let Some(uid) = uid {
        params = params.preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    }
    match api.delete(name, &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(source) => {
            let place = namespace.unwrap_or("");
            Err(ApplyError::Api { verb: "delete", object: format!("{} {place}/{name}", resource.kind), source })
        }
    }
}

fn api(client: &Client, want: &Rendered) -> Api<DynamicObject> {
    match &want.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &want.resource),
        None => Api::all_with(client.clone(), &want.resource),
    }
}
