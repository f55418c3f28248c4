//! Applies objects as a whole.
//!
//! Server-side apply alone keeps what others added, such as another container or port. So the live object is compared as a
//! whole: if another manager owns any part of its specification, the object is replaced instead of merged. An object that
//! is already as wanted costs one read and no write. The decision is in [`compare`].

mod compare;
mod rendered;

pub(crate) use compare::{Action, decide, is_foreign};
pub(crate) use rendered::Rendered;

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;

use crate::kubernetes::FIELD_MANAGER;

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

/// Applies one object, if the live one differs.
pub(crate) async fn apply(client: &Client, wanted: &Rendered) -> Result<Applied, ApplyError> {
    let api = api(client, wanted);
    let failed = |verb| move |source| ApplyError::Api { verb, object: wanted.to_string(), source };
    let live = api.get_opt(&wanted.name).await.map_err(failed("read"))?;
    let live = live.map(serde_json::to_value).transpose()?;
    if let Some(live) = &live
        && !wanted.same_owner(live)
    {
        return Err(ApplyError::NotOurs { object: wanted.to_string() });
    }
    let action = decide(wanted, live.as_ref());
    let was_applied_last =
        live.as_ref().is_some_and(|live| live["metadata"]["annotations"][APPLIED] == Value::String(wanted.digest()));
    let written = match (action, live) {
        (Action::Nothing, Some(live)) => return Ok(Applied { live, action, was_applied_last }),
        (Action::Replace, Some(live)) => {
            tracing::info!(object = %wanted, "restoring an object that someone else changed");
            let object: DynamicObject = serde_json::from_value(wanted.replacing(&live))?;
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            api.replace(&wanted.name, &params, &object).await.map_err(failed("replace"))?
        }
        _ => {
            tracing::debug!(object = %wanted, ?action, "applying");
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(&wanted.name, &params, &Patch::Apply(wanted.digested())).await.map_err(failed("apply"))?
        }
    };
    Ok(Applied { live: serde_json::to_value(written)?, action, was_applied_last })
}

fn api(client: &Client, wanted: &Rendered) -> Api<DynamicObject> {
    match &wanted.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &wanted.resource),
        None => Api::all_with(client.clone(), &wanted.resource),
    }
}
