//! The gateways of a cluster, which are pods. The API server reviews the token of each, and the pod must belong to the tenant's
//! gateway. Start at [`Pods`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_control::version::AUDIENCE;
use mcp_fleet_core::control_server::{AuthError, GatewayPod, Gateways};
use mcp_fleet_core::error::BoxError;
use mcp_fleet_core::labels;
use serde::Deserialize;

use crate::error::boxed;
use crate::kubernetes::cache::Cache;
use crate::kubernetes::timeout::with_timeout;

/// Name of a gateway's Deployment and `ServiceAccount`.
const GATEWAY: &str = "gateway";

/// The gateway pods of all tenants.
#[derive(Clone)]
pub(crate) struct Pods {
    pub(crate) client: Client,
    pub(crate) cache: Cache,
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl Gateways for Pods {
    async fn authenticate(&self, token: &str) -> Result<GatewayPod, AuthError> {
        review(&self.client, &self.cache, token).await
    }

    /// Asks the API server only if no EndpointSlice lists the pod.
    async fn check_again(&self, gateway: &GatewayPod) -> Result<(), AuthError> {
        if self.cache.lists_gateway(&gateway.namespace, &gateway.pod_uid) {
            return Ok(());
        }
        check_pod(&self.client, &self.cache, gateway).await
    }

    fn places(&self, tenant_uid: &str) -> Option<usize> {
        let tenant = self.cache.tenant_by_uid(tenant_uid)?;
        usize::try_from(tenant.spec.gateway.replicas).ok()
    }

    fn address(&self, namespace: &str, pod_uid: &str) -> Option<IpAddr> {
        self.cache.gateway_address(namespace, pod_uid)
    }

    async fn running(&self, tenant_uid: &str) -> Result<Option<BTreeSet<String>>, BoxError> {
        running(&self.client, &self.cache, tenant_uid).await.map_err(|error| boxed(&error))
    }
}

fn api_error(verb: &'static str) -> impl Fn(kube::Error) -> AuthError {
    move |error| AuthError::Api { verb, source: boxed(&error) }
}

/// Has the API server review a token, and checks the pod that it is bound to.
async fn review(client: &Client, cache: &Cache, token: &str) -> Result<GatewayPod, AuthError> {
    let review = TokenReview {
        spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let review =
        with_timeout(reviews.create(&PostParams::default(), &review)).await.map_err(api_error("review a token"))?;
    let status = review.status.unwrap_or_default();
    let for_this_audience = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    if status.authenticated != Some(true) || !for_this_audience {
        return Err(AuthError::NotAuthenticated(status.error.unwrap_or_else(|| "wrong audience".into())));
    }
    let bound = bound_pod(&status.user.unwrap_or_default())?;
    let tenant = cache.tenant_of_runtime(&bound.namespace);
    let namespace = cache.namespaces.get("", &bound.namespace);
    let owner = namespace.as_ref().and_then(|namespace| namespace.labels().get(labels::TENANT_UID));
    // The name of the namespace is not enough: the namespace must have been created for this tenant.
    let tenant = tenant.filter(|tenant| owner.is_some() && tenant.uid().as_ref() == owner);
    let tenant = tenant.ok_or_else(|| AuthError::NoTenant(bound.namespace.clone()))?;
    let gateway = GatewayPod {
        tenant: tenant.name_any(),
        tenant_uid: tenant.uid().unwrap_or_default(),
        namespace: bound.namespace,
        pod: bound.pod,
        pod_uid: bound.pod_uid,
        token_valid_for: token_valid_for(token, Timestamp::now().as_second()).ok_or(AuthError::NotBound)?,
    };
    check_pod(client, cache, &gateway).await?;
    Ok(gateway)
}

/// Checks that the pod exists and belongs to the tenant's gateway: pod ← `ReplicaSet` ← gateway Deployment.
async fn check_pod(client: &Client, cache: &Cache, gateway: &GatewayPod) -> Result<(), AuthError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &gateway.namespace);
    let pod = with_timeout(pods.get_opt(&gateway.pod)).await.map_err(api_error("read a pod"))?;
    let pod = pod.filter(|pod| pod.uid().as_deref() == Some(gateway.pod_uid.as_str()));
    let pod = pod.ok_or_else(|| AuthError::Gone(gateway.pod.clone()))?;
    let not_the_gateway = || AuthError::NotTheGateway(gateway.pod.clone());
    let set = controller(pod.owner_references(), "ReplicaSet").ok_or_else(not_the_gateway)?;
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &gateway.namespace);
    let found = with_timeout(sets.get_metadata_opt(&set.name)).await.map_err(api_error("read a ReplicaSet"))?;
    let found = found.filter(|found| found.uid().as_deref() == Some(set.uid.as_str())).ok_or_else(not_the_gateway)?;
    let deployment = controller(found.owner_references(), "Deployment").ok_or_else(not_the_gateway)?;
    let objects = cache.owned.with_label(labels::TENANT_UID, &gateway.tenant_uid);
    let is_gateway = objects.iter().any(|(key, meta)| {
        key.kind == "Deployment"
            && key.namespace == gateway.namespace
            && key.name == GATEWAY
            && meta.uid == deployment.uid
    });
    if is_gateway { Ok(()) } else { Err(not_the_gateway()) }
}

fn controller<'a>(owners: &'a [OwnerReference], kind: &str) -> Option<&'a OwnerReference> {
    owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == kind)
}

/// Pod that a token is bound to.
struct BoundPod {
    namespace: String,
    pod: String,
    pod_uid: String,
}

/// Returns the pod that a reviewed token is bound to. The token must belong to a gateway's `ServiceAccount`.
fn bound_pod(user: &UserInfo) -> Result<BoundPod, AuthError> {
    let name = user.username.as_deref().unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, GATEWAY)) = account else { return Err(AuthError::NotGateway(name.to_owned())) };
    let extra = |key: &str| {
        let values = user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{key}"))?;
        values.first().filter(|value| !value.is_empty()).cloned()
    };
    let pod = extra("pod-name").ok_or(AuthError::NotBound)?;
    let pod_uid = extra("pod-uid").ok_or(AuthError::NotBound)?;
    Ok(BoundPod { namespace: namespace.to_owned(), pod, pod_uid })
}

/// Returns how long a token is still valid. The API server has checked its signature.
fn token_valid_for(token: &str, now: i64) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { exp } = serde_json::from_slice(&payload).ok()?;
    u64::try_from(exp.saturating_sub(now)).ok().map(Duration::from_secs)
}

/// Returns the UIDs of a tenant's gateway pods that may still run. None if the tenant cannot be read so far that its runtime
/// namespace is known.
async fn running(client: &Client, cache: &Cache, tenant_uid: &str) -> Result<Option<BTreeSet<String>>, kube::Error> {
    let Some(tenant) = cache.objects.tenants.with_uid(tenant_uid) else { return Ok(Some(BTreeSet::new())) };
    let Some(tenant) = tenant.object() else { return Ok(None) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &tenant.runtime_namespace());
    let selector = format!("{}=gateway", labels::COMPONENT);
    let found = with_timeout(pods.list(&ListParams::default().labels(&selector))).await?;
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    Ok(Some(found.items.iter().filter(|pod| !has_ended(pod)).filter_map(ResourceExt::uid).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use k8s_openapi::api::discovery::v1::EndpointSlice;

    use super::*;
    use crate::controllers::tenant::tests::tenant;
    use crate::testing::TestContext;

    fn user(name: &str, extra: &[(&str, &str)]) -> UserInfo {
        let extra: std::collections::BTreeMap<String, Vec<String>> = extra
            .iter()
            .map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![(*value).to_owned()]))
            .collect();
        UserInfo { username: Some(name.to_owned()), extra: Some(extra), ..UserInfo::default() }
    }

    #[test]
    fn only_a_pod_bound_token_of_the_gateways_account_is_accepted() {
        let both = [("pod-name", "gateway-1"), ("pod-uid", "p-1")];
        let found = bound_pod(&user("system:serviceaccount:acme-mcp:gateway", &both)).unwrap();
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
            assert!(bound_pod(&user(name, extra)).is_err(), "{name} {extra:?}");
        }
    }

    #[tokio::test]
    async fn only_endpoint_slices_of_the_runtime_namespace_say_which_pods_there_are_and_where() {
        let mut test = TestContext::new();
        test.add_tenant(&tenant());
        let slice = |namespace: &str, uid: &str| {
            let slice = serde_json::from_value::<EndpointSlice>(serde_json::json!({
                "metadata": {"name": "gateway-x1", "namespace": namespace, "uid": uid},
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.7"], "targetRef": {"uid": uid}}],
            }));
            Arc::new(slice.unwrap())
        };
        test.ctx.cache.endpoints.put(slice("acme-mcp", "p-1"));
        // Anybody can make one in a namespace of their own.
        test.ctx.cache.endpoints.put(slice("acme", "p-2"));
        let check = async |namespace: &str, uid: &str| {
            let gateway = GatewayPod {
                tenant: "acme".into(),
                tenant_uid: "u-1".into(),
                namespace: namespace.into(),
                pod: "gateway-1".into(),
                pod_uid: uid.into(),
                token_valid_for: Duration::from_secs(60),
            };
            test.ctx.hub().gateways.check_again(&gateway).await
        };
        check("acme-mcp", "p-1").await.unwrap();
        for (namespace, unlisted) in [("acme-mcp", "p-2"), ("acme", "p-2"), ("acme-mcp", "p-3")] {
            assert!(matches!(check(namespace, unlisted).await, Err(AuthError::Gone(_))), "{unlisted} in {namespace}");
        }
        let cache = &test.ctx.cache;
        assert_eq!(cache.gateway_address("acme-mcp", "p-1"), Some([10, 0, 0, 7].into()));
        assert_eq!(cache.gateway_address("acme-mcp", "p-2"), None);
        assert_eq!(cache.gateway_address("acme", "p-2"), None, "a namespace of the tenant");
    }

    #[test]
    fn the_remaining_lifetime_is_read_from_the_token() {
        let token = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(token_valid_for(&token(r#"{"exp":1100}"#), 1000), Some(Duration::from_secs(100)));
        assert_eq!(token_valid_for(&token(r#"{"exp":900}"#), 1000), None);
        assert_eq!(token_valid_for("not-a-token", 1000), None);
    }
}
