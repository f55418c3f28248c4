//! Reports objects that cannot be read: in their status and in an Event, once for each version of their spec. No controller
//! reconciles them, because they are not in the store of their kind.
//!
//! The status is patched without reading the object, and with the conditions alone. Start at [`run`].

mod metric;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mcp_fleet_core::guard::{GuardedKind, Unreadable};
use mcp_fleet_core::labels::FINALIZER;
use mcp_fleet_core::retry::Backoff;
use mcp_fleet_crds::condition::{self, ConditionReason};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::principal::revoke;
use super::status::Summary;
use crate::context::Context;
use crate::error;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Change, Objects};

pub(crate) use metric::UnreadableObjects;

/// The first pause after a report that failed, and the longest; jitter at most doubles them.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The problems that were reported, by UID of the object, each with the generation of its spec.
type Reported = BTreeMap<String, (Option<i64>, String)>;

/// Reports objects that cannot be read, as soon as the cache has them. Never returns.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut changes = ctx.cache.subscribe();
    let mut reported = Reported::new();
    let new_backoff = || Backoff::new(FAILURE_PAUSES.0, FAILURE_PAUSES.1);
    let mut backoff = new_backoff();
    loop {
        let retry = if report_all(&ctx, &mut reported).await {
            backoff = new_backoff();
            None
        } else {
            Some(backoff.next_pause())
        };
        tokio::select! {
            open = next_change(&mut changes) => if !open { return },
            () = async { tokio::time::sleep(retry.unwrap_or_default()).await }, if retry.is_some() => {}
        }
    }
}

/// Waits until an object of a kind that is reported here changed. Returns false if no more changes will come.
async fn next_change(changes: &mut broadcast::Receiver<Change>) -> bool {
    loop {
        match changes.recv().await {
            Ok(Change::Endpoints(_) | Change::Namespace(_) | Change::Owned(_)) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Reports every object that cannot be read and was not reported before. Returns whether all of it succeeded.
async fn report_all(ctx: &Context, reported: &mut Reported) -> bool {
    let all = &ctx.cache.objects;
    let mut unreadable = Vec::new();
    let mut complete = report_kind(ctx, &all.tenants, reported, &mut unreadable).await;
    complete &= report_kind(ctx, &all.servers, reported, &mut unreadable).await;
    complete &= report_kind(ctx, &all.scopes, reported, &mut unreadable).await;
    complete &= report_kind(ctx, &all.principals, reported, &mut unreadable).await;
    complete &= report_kind(ctx, &all.budgets, reported, &mut unreadable).await;
    reported.retain(|uid, _| unreadable.contains(uid));
    complete & store_revocations(ctx).await
}

async fn report_kind<K: GuardedKind>(
    ctx: &Context,
    objects: &Objects<K>,
    reported: &mut Reported,
    unreadable: &mut Vec<String>,
) -> bool {
    let mut complete = true;
    for object in objects.unreadable() {
        let uid = object.uid().unwrap_or_default();
        unreadable.push(uid.clone());
        let version = (object.metadata.generation, object.problem.clone());
        if reported.get(&uid) == Some(&version) {
            continue;
        }
        match report(ctx, &object).await {
            Ok(()) => {
                reported.insert(uid, version);
            }
            // The cache gets the newer version, or learns that the object is gone.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => complete = false,
            Err(error) if is_permanent(&error) => {
                // The Event then is the only report.
                let (kind, name) = (K::kind(&()), object.name_any());
                tracing::error!(%kind, name, error = error::chain(&error), "failed to report an unreadable object");
                announce(ctx, &object, message(&object)).await;
                reported.insert(uid, version);
            }
            Err(error) => {
                let (kind, name) = (K::kind(&()), object.name_any());
                tracing::warn!(%kind, name, error = error::chain(&error), "failed to report an unreadable object");
                complete = false;
            }
        }
    }
    complete
}

/// Writes the conditions of an object that cannot be read, and an Event, unless its status already has them.
async fn report<K: GuardedKind>(ctx: &Context, object: &Unreadable<K>) -> Result<(), kube::Error> {
    let message = message(object);
    let conditions = conditions(object, &message, Timestamp::now());
    if conditions == object.conditions {
        return Ok(());
    }
    let patch = json!({
        // So that a status of a newer version is not overwritten.
        "metadata": {"resourceVersion": object.metadata.resource_version},
        "status": {"observedGeneration": object.metadata.generation, "conditions": conditions},
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    api(ctx, object).patch_status(&object.name_any(), &params, &Patch::Merge(patch)).await?;
    announce(ctx, object, message).await;
    Ok(())
}

async fn announce<K: GuardedKind>(ctx: &Context, object: &Unreadable<K>, message: String) {
    ctx.events.warning(object, ConditionReason::InvalidSpec.as_str(), "Reconcile", message).await;
}

/// Whether the API server will not accept the status of this version, however often it is written.
fn is_permanent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422))
}

fn api<K: GuardedKind>(ctx: &Context, object: &Unreadable<K>) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<K>(&());
    match object.namespace() {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), &namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    }
}

fn conditions<K: GuardedKind>(object: &Unreadable<K>, message: &str, now: Timestamp) -> Vec<Condition> {
    let summary = Summary::Stalled(ConditionReason::InvalidSpec, message.to_owned());
    condition::merge(&object.conditions, &summary.conditions(), object.metadata.generation, &Time(now))
}

/// Says which field cannot be read, what to do, and what holds until then.
fn message<K: GuardedKind>(object: &Unreadable<K>) -> String {
    let kind = K::kind(&());
    let is_torn_down =
        object.metadata.deletion_timestamp.is_some() && object.finalizers().iter().any(|it| it == FINALIZER);
    let until = if is_torn_down {
        "it cannot be torn down"
    } else if matches!(&*kind, "MCPTenant" | "MCPPrincipal") && !can_be_stopped(object) {
        "its calls are refused"
    } else if kind == "MCPPrincipal" {
        "what was in force stays in force, but its token is not renewed"
    } else {
        "what was in force stays in force"
    };
    format!(
        "{}; correct the field, or update the operator if it is older than the resource definitions. Until then, {until}",
        object.problem
    )
}

/// Whether the fields that stop calls can be read.
fn can_be_stopped<K>(object: &Unreadable<K>) -> bool {
    // A tenant has no revokeIssuedBefore, so it is never missing there.
    ["suspend", "revokeIssuedBefore"].iter().all(|field| object.with_field(field).is_some())
}

/// Stores the revocations that principals request which cannot be read otherwise. The policy already contains them.
async fn store_revocations(ctx: &Context) -> bool {
    let mut complete = true;
    for object in ctx.cache.objects.principals.unreadable() {
        let Some(principal) = object.with_field("revokeIssuedBefore") else { continue };
        if let Err(error) = revoke(principal, ctx).await {
            let name = object.name_any();
            tracing::warn!(name, error = error.chain(), "failed to store the revocation of an unreadable principal");
            complete = false;
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use mcp_fleet_core::testing::unreadable;
    use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPTenant};
    use prometheus::core::Collector as _;
    use serde_json::Value;

    use super::*;
    use crate::kubernetes::cache::testing::{WatchedApi, budget, eventually};

    fn reason_and_status(object: &Value, kind: &str) -> (String, String) {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        (condition["reason"].as_str().unwrap().into(), condition["status"].as_str().unwrap().into())
    }

    #[tokio::test]
    async fn an_unreadable_object_is_reported_once_per_version() {
        let api = WatchedApi::default();
        api.put("mcpbudgets", budget("daily", "9999999999"));
        api.put("mcpbudgets", budget("good", "5.00"));
        let (ctx, watches) = Context::of_client(api.client()).await;
        let metric = UnreadableObjects::new(ctx.cache.clone()).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&metric.collect()).unwrap();
        assert!(text.contains("mcp_fleet_unreadable_objects{kind=\"MCPBudget\"} 1\n"), "{text}");
        let mut reported = Reported::new();
        assert!(report_all(&ctx, &mut reported).await);
        let status = "PATCH /apis/mcp-fleet.dev/v1alpha1/namespaces/acme/mcpbudgets/daily/status";
        assert_eq!(api.take_writes(), [status, "POST /apis/events.k8s.io/v1/namespaces/acme/events"]);
        let object = api.get("mcpbudgets", "daily").unwrap();
        assert_eq!(reason_and_status(&object, "Ready"), ("InvalidSpec".into(), "False".into()));
        assert_eq!(reason_and_status(&object, "Stalled"), ("InvalidSpec".into(), "True".into()));
        assert_eq!(object["status"]["observedGeneration"], 1);

        // The status is a new version, but not of the spec. A new leader finds it.
        let written = object["metadata"]["resourceVersion"].clone();
        eventually("the written status", || {
            let found = ctx.cache.objects.budgets.unreadable().pop()?;
            (found.metadata.resource_version.as_deref() == written.as_str()).then_some(())
        })
        .await;
        for mut reported in [reported.clone(), Reported::new()] {
            assert!(report_all(&ctx, &mut reported).await);
        }
        assert!(api.take_writes().is_empty());

        api.put("mcpbudgets", budget("daily", "99999999999"));
        eventually("the edit", || {
            let found = ctx.cache.objects.budgets.unreadable().pop()?;
            (found.metadata.generation == Some(2)).then_some(())
        })
        .await;
        assert!(report_all(&ctx, &mut reported).await);
        assert_eq!(api.take_writes().len(), 2);
        assert_eq!(api.get("mcpbudgets", "daily").unwrap()["status"]["observedGeneration"], 2);
        watches.abort();
    }

    #[tokio::test]
    async fn a_status_of_a_newer_version_is_not_overwritten() {
        let api = WatchedApi::default();
        api.put("mcpbudgets", budget("daily", "9999999999"));
        let (ctx, watches) = Context::of_client(api.client()).await;
        watches.abort();
        let _ = watches.await;
        api.put("mcpbudgets", budget("daily", "5.00"));
        assert!(!report_all(&ctx, &mut Reported::new()).await, "the report has to be repeated");
        assert!(api.get("mcpbudgets", "daily").unwrap().get("status").is_none());
    }

    #[test]
    fn the_message_says_what_holds_until_the_field_is_corrected() {
        let object = |kind: &str, metadata: Value, spec: Value| json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        let budget = unreadable::<MCPBudget>(budget("daily", "9999999999"));
        assert!(message(&budget).starts_with("spec.amount: "), "{}", message(&budget));
        assert!(message(&budget).ends_with("what was in force stays in force"));
        let principal = |spec| unreadable::<MCPPrincipal>(object("MCPPrincipal", json!({"name": "coder"}), spec));
        assert!(message(&principal(json!({"limits": 1}))).ends_with("its token is not renewed"));
        assert!(message(&principal(json!({"suspend": "yes"}))).ends_with("its calls are refused"));
        let deleted = json!({"name": "acme", "deletionTimestamp": "2026-11-22T12:00:00Z", "finalizers": [FINALIZER]});
        let tenant = unreadable::<MCPTenant>(object("MCPTenant", deleted, json!({"namespace": {"name": 1}})));
        assert!(message(&tenant).ends_with("it cannot be torn down"));
    }
}
