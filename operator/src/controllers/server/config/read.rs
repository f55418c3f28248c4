//! Reads the Secrets and `ConfigMap`s of a server from the tenant's namespace.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use mcp_fleet_core::server_config::{Found, Problem, References, Source, check_count, of_config_map, of_secret};
use mcp_fleet_crds::condition::ConditionReason as Reason;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::outcome::{Rejection, Until};

/// Waits for a turn to handle the contents of Secrets and `ConfigMap`s, each of which can have a megabyte.
pub(super) async fn turn() -> Option<SemaphorePermit<'static>> {
    static TURNS: Semaphore = Semaphore::const_new(4);
    // It is never closed.
    TURNS.acquire().await.ok()
}

/// Reads what a program refers to. Sends no request for one that refers to nothing.
pub(crate) async fn read(
    ctx: &Context,
    namespace: &str,
    server: &str,
    references: &References,
) -> Result<Result<Found, Rejection>, ReconcileError> {
    let mut found = Found::default();
    if references.is_empty() {
        return Ok(Ok(found));
    }
    if let Err(problem) = check_count(references) {
        return Ok(Err(rejection(problem)));
    }
    if !ctx.cache.has_access(namespace) {
        let message = format!("the operator's access to the namespace {namespace} is being prepared");
        return Ok(Err(Rejection { reason: Reason::Progressing, message, until: Until::Prepared }));
    }
    let _turn = turn().await;
    for (source, keys) in &references.0 {
        let data = match source {
            Source::Secret(name) | Source::PullSecret(name) => {
                let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
                let secret = api.get_opt(name).await.map_err(ReconcileError::api("read a Secret of a server"))?;
                of_secret(source, secret, server, keys)
            }
            Source::ConfigMap(name) => {
                let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
                let object = api.get_opt(name).await.map_err(ReconcileError::api("read a ConfigMap of a server"))?;
                of_config_map(name, object, keys)
            }
        };
        match data.and_then(|data| found.insert(source.clone(), data)) {
            Ok(()) => {}
            // As Kubernetes does: pods start if their image can be pulled without it.
            Err(problem) if keys.may_be_refused => {
                tracing::debug!(problem = problem.message, "a pull secret of the tenant is not used");
            }
            Err(problem) => return Ok(Err(rejection(problem))),
        }
    }
    Ok(Ok(found))
}

/// Returns the rejection of a server whose program cannot be configured.
pub(crate) fn rejection(Problem { reason, message }: Problem) -> Rejection {
    Rejection { reason, message, until: Until::UnwatchedChanged }
}
