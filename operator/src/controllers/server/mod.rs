//! The controller of `MCPServer`: the user's program under our shim, behind a Service that only the gateway reaches.

mod apply;
mod config;
mod dereference;
mod desired;
mod diagnosis;
mod fit;
mod growth;
mod placement;
mod program;
mod pull;
mod running;
mod status;
mod teardown;
#[cfg(test)]
pub(crate) mod tests;
mod validate;
pub(super) mod workspace;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use mcp_fleet_core::labels;
use mcp_fleet_core::retry::jittered;
use mcp_fleet_core::server_config::References;
use mcp_fleet_core::shared_state::StateChange;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::condition::ConditionReason;

use super::action::Action;
use super::error::ReconcileError;
use super::finalizer::with_finalizer;
use super::manifests::settings::Settings;
use super::outcome::{Outcome, Rejection, Until};
use super::{Controller, affected_by_policy};
use crate::context::Context;
use crate::kubernetes::cache::{Cache, Change, Readable, in_namespace, references};
use crate::rollout::ShimOptions;

use apply::{Applied, apply};
use dereference::dereference;
use desired::desired;
use diagnosis::Diagnosis;
use growth::Growth;
use teardown::tear_down;
use validate::{Server, validate};

/// Returns the name of the Secret with the last report of a server.
pub(crate) fn report_secret_name(server: &str) -> String {
    format!("{}-report", validate::object_name(server))
}

/// How often what a program is configured with is read again: nothing else tells that somebody changed it.
const READ_INTERVAL: Duration = Duration::from_secs(60);

/// The controller of `MCPServer`.
#[derive(Debug)]
pub(crate) struct Servers;

/// What is done for a server.
enum Decision {
    /// It runs as it is written.
    Run(Server),
    /// It is rejected as it is written, and what was applied for it before is maintained.
    Maintain(Server, Rejection),
    /// It is rejected, and nothing is applied for it.
    Reject(Rejection),
}

/// Asks why a server is not available, if it is not for some time. Returns when to ask again as well.
async fn diagnose(
    ctx: &Context,
    object: &MCPServer,
    outcome: &Outcome<Applied>,
) -> (Option<Duration>, Option<Diagnosis>) {
    let applied = match outcome {
        Outcome::Applied(applied) if status::waits_for_pods(applied) => applied,
        _ => return (None, None),
    };
    let now = Timestamp::now();
    let (again, is_due) = diagnosis::when(status::unavailable_since(object, now), now);
    if !is_due {
        return (Some(jittered(again)), None);
    }
    // The status is written in any case.
    let diagnosis = Box::pin(diagnosis::diagnose(ctx, &applied.server)).await.unwrap_or_else(|error| {
        tracing::warn!(error = error.chain(), "failed to find out why pods are not ready");
        None
    });
    (Some(jittered(again)), diagnosis)
}

/// Returns a server whose program needs nothing that the tenant's image of `mcp-pod` does not know.
async fn has_image_for(ctx: &Context, server: Server) -> Result<Result<Server, Rejection>, ReconcileError> {
    let needed = server.program.needed_options();
    if needed == ShimOptions::FIRST {
        return Ok(Ok(server));
    }
    let tenant = ctx.cache.tenant_by_uid(&server.tenant.uid);
    let tenant = tenant.ok_or(ReconcileError::Incomplete("the tenant"))?;
    let pods = ctx.rollout.pods(ctx, &tenant).await.map_err(ReconcileError::api("read the gateway's Deployment"))?;
    if pods.options >= needed {
        return Ok(Ok(server));
    }
    let message = "the pods of the tenant get a later image of mcp-pod first, which this server needs".to_owned();
    Ok(Err(Rejection { reason: ConditionReason::Progressing, message, until: Until::Prepared }))
}

/// Applies the objects of a server.
async fn apply_server(
    ctx: &Context,
    object: &MCPServer,
    mut server: Server,
) -> Result<Outcome<Applied>, ReconcileError> {
    let tenant = ctx.cache.tenant_by_uid(&server.tenant.uid);
    let tenant = tenant.ok_or(ReconcileError::Incomplete("the tenant"))?;
    let settings = Settings::load(ctx, &tenant).await?;
    let mut copied = config::Copied::default();
    if let Some(found) = &server.config {
        let references = object.spec.source.container().map(References::of).unwrap_or_default();
        // Boxed, as what few servers need: it would make the future of every reconcile larger.
        match Box::pin(config::apply(ctx, &server, (&references, found))).await {
            Ok(done) => copied = done,
            Err(error) => return Outcome::of(Err(error)),
        }
        server.program.set_config_version(copied.version.clone());
    }
    let objects = desired(&server, &settings);
    let outcome = Outcome::of(apply(ctx, object, server, &objects).await)?;
    if let Outcome::Applied(Applied { server, workload, .. }) = &outcome {
        let available = status::is_available(workload);
        if let Some(found) = server.config.as_ref().filter(|_| available) {
            Box::pin(config::prune(ctx, object, server, (found, &copied))).await?;
        }
        ctx.rollout.report_server(&server.tenant.uid, &server.id.uid, &settings.image, available);
    }
    Ok(outcome)
}

impl Controller for Servers {
    type Kind = MCPServer;
    const NAME: &'static str = "server";

    fn store(cache: &Cache) -> Readable<MCPServer> {
        cache.servers.clone()
    }

    fn affected_by_change(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPServer>> {
        match change {
            // What one server uses of the quota decides which others fit in it.
            Change::Server(namespace, _) if fit::stops_servers(cache, namespace) => {
                in_namespace(&cache.servers, namespace)
            }
            Change::Server(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.servers, name),
            Change::Namespace(name) => {
                let runtime = cache.tenant_of_runtime(name);
                let namespace = runtime.map_or_else(|| name.clone(), |tenant| tenant.spec.namespace.name.clone());
                in_namespace(&cache.servers, &namespace)
            }
            Change::Owned(found) => match found.get(labels::SERVER_UID) {
                Some(uid) => references(cache.server_by_uid(uid)),
                // Servers wait for access to the runtime namespace and for its network policies.
                None if matches!(found.get(labels::COMPONENT), Some("access" | "network")) => {
                    let tenant = found.get(labels::TENANT_UID);
                    tenant.map(|uid| cache.of_tenant_with_uid(&cache.servers, uid)).unwrap_or_default()
                }
                None => vec![],
            },
            _ => vec![],
        }
    }

    fn affected_by_state(ctx: &Context, change: &StateChange) -> Vec<ObjectRef<MCPServer>> {
        match change {
            StateChange::Rollout(tenant) => ctx.cache.of_tenant_with_uid(&ctx.cache.servers, tenant),
            _ => affected_by_policy(ctx, &ctx.cache.servers, Kind::Server, change),
        }
    }

    async fn reconcile(object: Arc<MCPServer>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
        let ctx = &*ctx;
        let api: Api<MCPServer> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
        let inputs = dereference(&object, ctx).await?;
        let validated = match validate(&object, &inputs) {
            Ok(server) => has_image_for(ctx, server).await?,
            rejected => rejected,
        };
        let decision = match validated {
            Ok(server) => Decision::Run(server),
            Err(rejection) => running::decide(ctx, &object, &inputs, rejection).await?,
        };
        // Nothing was made for a server that was never accepted, so it needs no finalizer.
        let container = object.spec.source.container();
        let is_configured = container.zip(inputs.owner.as_ref()).is_some_and(|(container, owner)| {
            !pull::with_secrets(References::of(container), &object, &owner.tenant).is_empty()
        });
        let reads_again = is_configured.then(|| jittered(READ_INTERVAL));
        let needs_finalizer = !matches!(decision, Decision::Reject(_)) || object.metadata.deletion_timestamp.is_some();
        let reconcile = |object: Arc<MCPServer>| async move {
            let outcome = match decision {
                Decision::Run(server) => apply_server(ctx, &object, server).await?,
                Decision::Maintain(server, rejection) => match apply_server(ctx, &object, server).await? {
                    Outcome::Applied(_) => Outcome::Rejected(rejection),
                    failed => failed,
                },
                Decision::Reject(rejection) => Outcome::Rejected(rejection),
            };
            let (asks_again, diagnosis) = diagnose(ctx, &object, &outcome).await;
            let held_back = status::write(ctx, &object, &outcome, diagnosis.as_ref()).await?;
            let is_growing =
                outcome.applied().is_ok_and(|applied| applied.growth.as_ref().is_some_and(|it| *it != Growth::Done));
            let grows_again = is_growing.then(|| jittered(growth::CHECK_INTERVAL));
            let next = outcome.next()?.no_later_than(held_back).no_later_than(grows_again);
            Ok(next.no_later_than(reads_again).no_later_than(asks_again))
        };
        if needs_finalizer {
            with_finalizer(&api, object, reconcile, |object| async move { tear_down(&object, ctx).await }).await
        } else {
            reconcile(object).await
        }
    }
}
