//! Which pod calls, and for which tenant: the API server judges its token, and the pod has to be one of ours.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use mcp_fleet_control::version::AUDIENCE;
use serde::Deserialize;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::context::Context;
use crate::kubernetes::cache::tenant_of_runtime;
use crate::kubernetes::labels;
use crate::kubernetes::timeout::with_timeout;

/// The name of a gateway's Deployment and `ServiceAccount`.
const GATEWAY: &str = "gateway";
/// The longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;

/// A gateway that has proved who it is.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) tenant: String,
    pub(super) tenant_uid: String,
    /// The runtime namespace.
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) pod_uid: String,
    /// How long its token is still good.
    pub(super) good_for: Duration,
}

/// Why a caller is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthError {
    #[error("there is no bearer token")]
    NoToken,
    #[error("the API server does not accept the token: {0}")]
    NotAuthenticated(String),
    #[error("{0} is not the ServiceAccount of a gateway")]
    NotGateway(String),
    #[error("the token is not bound to a pod")]
    NotBound,
    #[error("pod {0} is gone or was replaced")]
    Gone(String),
    #[error("pod {0} does not belong to the gateway that was made for its tenant")]
    NotOurs(String),
    #[error("namespace {0} is not the runtime namespace of a tenant")]
    NoTenant(String),
    #[error("failed to {verb}")]
    Api { verb: &'static str, source: Box<kube::Error> },
}

impl AuthError {
    pub(super) fn status(&self) -> Status {
        let code = match self {
            Self::NoToken | Self::NotAuthenticated(_) => Code::Unauthenticated,
            Self::Api { .. } => Code::Unavailable,
            _ => Code::PermissionDenied,
        };
        Status::new(code, self.to_string())
    }

    fn api(verb: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api { verb, source: Box::new(source) }
    }
}

/// Finds out who calls.
pub(super) async fn authenticate(ctx: &Context, metadata: &MetadataMap) -> Result<Caller, AuthError> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).filter(|token| token.len() <= MAX_TOKEN);
    let token = token.ok_or(AuthError::NoToken)?;
    let review = TokenReview {
        spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(ctx.client.clone());
    let review = with_timeout(reviews.create(&PostParams::default(), &review))
        .await
        .map_err(AuthError::api("review a token"))?;
    let status = review.status.unwrap_or_default();
    let meant_for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    if status.authenticated != Some(true) || !meant_for_us {
        return Err(AuthError::NotAuthenticated(status.error.unwrap_or_else(|| "wrong audience".into())));
    }
    let bound = bound(&status.user.unwrap_or_default())?;
    let cache = &ctx.cache;
    let tenant = tenant_of_runtime(&bound.namespace, &cache.tenants.state());
    let made = cache.namespaces.get(&ObjectRef::new(&bound.namespace));
    let maker = made.as_ref().and_then(|namespace| namespace.labels().get(labels::TENANT_UID));
    // A namespace of the right name is not enough: it has to be the one that was made for this tenant.
    let tenant = tenant.filter(|tenant| maker.is_some() && tenant.uid().as_ref() == maker);
    let tenant = tenant.ok_or_else(|| AuthError::NoTenant(bound.namespace.clone()))?;
    let caller = Caller {
        tenant: tenant.name_any(),
        tenant_uid: tenant.uid().unwrap_or_default(),
        namespace: bound.namespace,
        pod: bound.pod,
        pod_uid: bound.pod_uid,
        good_for: good_for(token, Timestamp::now().as_second()).ok_or(AuthError::NotBound)?,
    };
    check_pod(ctx, &caller).await?;
    Ok(caller)
}

/// Checks that the pod is still there, and was made for its tenant: pod ← `ReplicaSet` ← our Deployment.
pub(super) async fn check_pod(ctx: &Context, caller: &Caller) -> Result<(), AuthError> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &caller.namespace);
    let pod = with_timeout(pods.get_opt(&caller.pod)).await.map_err(AuthError::api("read a pod"))?;
    let pod = pod.filter(|pod| pod.uid().as_deref() == Some(caller.pod_uid.as_str()));
    let pod = pod.ok_or_else(|| AuthError::Gone(caller.pod.clone()))?;
    let not_ours = || AuthError::NotOurs(caller.pod.clone());
    let set = controller(pod.owner_references(), "ReplicaSet").ok_or_else(not_ours)?;
    let sets: Api<ReplicaSet> = Api::namespaced(ctx.client.clone(), &caller.namespace);
    let found = with_timeout(sets.get_metadata_opt(&set.name)).await.map_err(AuthError::api("read a ReplicaSet"))?;
    let found = found.filter(|found| found.uid().as_deref() == Some(set.uid.as_str())).ok_or_else(not_ours)?;
    let deployment = controller(found.owner_references(), "Deployment").ok_or_else(not_ours)?;
    let ours = ctx.cache.owned.with_label(labels::TENANT_UID, &caller.tenant_uid);
    let known = ours.iter().any(|(key, meta)| {
        key.kind == "Deployment"
            && key.namespace == caller.namespace
            && key.name == GATEWAY
            && meta.uid == deployment.uid
    });
    if known { Ok(()) } else { Err(not_ours()) }
}

fn controller<'a>(owners: &'a [OwnerReference], kind: &str) -> Option<&'a OwnerReference> {
    owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == kind)
}

/// The pod that a token is bound to.
struct Bound {
    namespace: String,
    pod: String,
    pod_uid: String,
}

fn bound(user: &UserInfo) -> Result<Bound, AuthError> {
    let name = user.username.as_deref().unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, GATEWAY)) = account else { return Err(AuthError::NotGateway(name.to_owned())) };
    let extra = |key: &str| {
        let values = user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{key}"))?;
        values.first().filter(|value| !value.is_empty()).cloned()
    };
    let pod = extra("pod-name").ok_or(AuthError::NotBound)?;
    let pod_uid = extra("pod-uid").ok_or(AuthError::NotBound)?;
    Ok(Bound { namespace: namespace.to_owned(), pod, pod_uid })
}

/// How long a token is still good. Its signature has been checked by the API server.
fn good_for(token: &str, now: i64) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { exp } = serde_json::from_slice(&payload).ok()?;
    u64::try_from(exp.saturating_sub(now)).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str, extra: &[(&str, &str)]) -> UserInfo {
        let extra: std::collections::BTreeMap<String, Vec<String>> = extra
            .iter()
            .map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![(*value).to_owned()]))
            .collect();
        UserInfo { username: Some(name.to_owned()), extra: Some(extra), ..UserInfo::default() }
    }

    #[test]
    fn only_the_gateways_account_with_a_token_bound_to_a_pod_is_taken() {
        let both = [("pod-name", "gateway-1"), ("pod-uid", "p-1")];
        let found = bound(&user("system:serviceaccount:acme-mcp:gateway", &both)).unwrap();
        assert_eq!(
            (found.namespace.as_str(), found.pod.as_str(), found.pod_uid.as_str()),
            ("acme-mcp", "gateway-1", "p-1")
        );
        for (name, extra) in [
            ("system:serviceaccount:acme-mcp:default", &both[..]),
            ("gateway", &both[..]),
            ("system:serviceaccount:acme-mcp:gateway", &both[..1]),
            ("system:serviceaccount:acme-mcp:gateway", &[]),
        ] {
            assert!(bound(&user(name, extra)).is_err(), "{name} {extra:?}");
        }
    }

    #[test]
    fn a_token_says_how_long_it_is_good() {
        let token = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(good_for(&token(r#"{"exp":1100}"#), 1000), Some(Duration::from_secs(100)));
        assert_eq!(good_for(&token(r#"{"exp":900}"#), 1000), None);
        assert_eq!(good_for("not-a-token", 1000), None);
    }
}
