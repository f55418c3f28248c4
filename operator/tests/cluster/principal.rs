//! Principals: tokens, rotation, revocation, and existing Secrets of the same name.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_core::credentials::tokens::{Claims, TenantKeys};
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_operator::credentials::tokens::secret_name;
use serde_json::{Value, json};

use crate::support::{
    OPERATOR_NAMESPACE, create, eventually, tenant, unique, wait_for, wait_for_reason, wait_until_open, with_operator,
};

const SECRET: &str = "coder-mcp-credential";

fn principals(client: &Client, namespace: &str) -> Api<MCPPrincipal> {
    Api::namespaced(client.clone(), namespace)
}

fn secrets(client: &Client, namespace: &str) -> Api<Secret> {
    Api::namespaced(client.clone(), namespace)
}

async fn prepared_tenant(client: &Client, prefix: &str, spec: Value) -> (String, String) {
    let name = unique(prefix);
    let uid = tenant(client, &name, spec).await.uid().unwrap();
    wait_for(&Api::<Deployment>::namespaced(client.clone(), &format!("{name}-mcp")), "gateway").await;
    wait_until_open(client, &name).await;
    (name, uid)
}

async fn principal(client: &Client, namespace: &str) -> MCPPrincipal {
    let body = json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPPrincipal",
        "metadata": {"name": "coder", "namespace": namespace}, "spec": {},
    });
    create(&principals(client, namespace), body).await
}

fn text(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.clone().unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect()
}

/// Returns the claims of a token without checking its signature.
fn claims_of(token: &str) -> Option<Claims> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Waits for a token that `wanted` accepts.
async fn token(client: &Client, namespace: &str, what: &str, wanted: impl Fn(&Claims) -> bool) -> (String, Claims) {
    eventually(what, || async {
        let secret = secrets(client, namespace).get_opt(SECRET).await.unwrap()?;
        let token = text(&secret).remove("token")?;
        let claims = claims_of(&token)?;
        wanted(&claims).then_some((token, claims))
    })
    .await
}

#[tokio::test]
async fn a_principal_gets_a_token_that_the_tenants_key_verifies() {
    let client = with_operator().await;
    let (name, uid) = prepared_tenant(&client, "issue", json!({})).await;
    let object = principal(&client, &name).await;
    let (token, claims) = token(&client, &name, "a token", |_| true).await;
    assert_eq!(claims.sub, format!("{name}/coder"));
    assert_eq!(claims.aud, format!("https://gateway.{name}-mcp.svc"));
    assert_eq!((claims.exp - claims.iat, claims.mcp_fleet.principal), (3600, object.uid().unwrap()));

    let keys = secrets(&client, OPERATOR_NAMESPACE).get(&secret_name(&uid)).await.unwrap().data.unwrap();
    let keys = TenantKeys::from_parts(&keys["key.der"].0, &keys["session"].0).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.set_audience(&[&claims.aud]);
    let key = jsonwebtoken::DecodingKey::from_ec_der(&keys.point);
    jsonwebtoken::decode::<Claims>(&token, &key, &rules).unwrap();

    let secret = secrets(&client, &name).get(SECRET).await.unwrap();
    assert_eq!(secret.owner_references()[0].uid, object.uid().unwrap());
    let data = text(&secret);
    assert_eq!(data.keys().collect::<Vec<_>>(), ["ca.crt", "expiresAt", "rotatesAt", "token", "url"]);
    assert_eq!(data["url"], claims.aud);
    wait_for_reason(&principals(&client, &name), "coder", "CredentialCurrent", "Issued").await;
}

#[tokio::test]
async fn a_token_is_rotated_in_time_and_issued_again_when_deleted() {
    let client = with_operator().await;
    let credentials = json!({"credentials": {"lifetime": "1m", "overlap": "56s"}});
    let (name, _) = prepared_tenant(&client, "rotate", credentials).await;
    principal(&client, &name).await;
    let (_, first) = token(&client, &name, "a token", |_| true).await;
    let (_, second) = token(&client, &name, "its successor", |claims| claims.mcp_fleet.serial == 2).await;
    assert!((4..=7).contains(&(second.iat - first.iat)), "{} s", second.iat - first.iat);
    assert!(second.iat < first.exp, "the tokens must overlap");

    secrets(&client, &name).delete(SECRET, &DeleteParams::default()).await.unwrap();
    token(&client, &name, "another", |claims| claims.mcp_fleet.serial > 2).await;
}

#[tokio::test]
async fn an_existing_secret_is_left_alone() {
    let client = with_operator().await;
    let (name, _) = prepared_tenant(&client, "squatted", json!({})).await;
    let squatted = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": name},
        "stringData": {"token": "planted"},
    });
    create(&secrets(&client, &name), squatted).await;
    principal(&client, &name).await;
    wait_for_reason(&principals(&client, &name), "coder", "CredentialCurrent", "SecretNotOwned").await;
    wait_for_reason(&principals(&client, &name), "coder", "Stalled", "SecretNotOwned").await;
    assert_eq!(text(&secrets(&client, &name).get(SECRET).await.unwrap())["token"], "planted");
}

async fn revoke(client: &Client, namespace: &str, until: Option<Timestamp>) {
    let patch = json!({"spec": {"revokeIssuedBefore": until.map(|until| until.to_string())}});
    principals(client, namespace).patch("coder", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test]
async fn a_revocation_is_permanent_and_followed_by_a_new_token() {
    let client = with_operator().await;
    let (name, uid) = prepared_tenant(&client, "revoke", json!({})).await;
    let principal_uid = principal(&client, &name).await.uid().unwrap();
    let (_, first) = token(&client, &name, "a token", |_| true).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let until = Timestamp::now();
    revoke(&client, &name, Some(until)).await;
    let (_, next) = token(&client, &name, "a new token", |claims| claims.iat > until.as_second()).await;
    assert!(next.mcp_fleet.serial > first.mcp_fleet.serial);
    wait_for_reason(&principals(&client, &name), "coder", "RevocationApplied", "Applied").await;

    // Neither removing the time nor setting an earlier one undoes the revocation.
    let revocations: Api<ConfigMap> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    revoke(&client, &name, None).await;
    revoke(&client, &name, Some(until - Duration::from_hours(1))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stored = revocations.get(&format!("tenant-{uid}-revocations")).await.unwrap().data.unwrap();
    assert_eq!(stored[&principal_uid], until.as_second().to_string());
    let kept = token(&client, &name, "the same token", |_| true).await.1;
    assert_eq!(kept.mcp_fleet.serial, next.mcp_fleet.serial);
}

#[tokio::test]
async fn a_revocation_in_the_future_is_not_applied() {
    let client = with_operator().await;
    let (name, uid) = prepared_tenant(&client, "future", json!({})).await;
    principal(&client, &name).await;
    let (_, first) = token(&client, &name, "a token", |_| true).await;
    revoke(&client, &name, Some(Timestamp::now() + Duration::from_hours(1))).await;
    wait_for_reason(&principals(&client, &name), "coder", "RevocationApplied", "InFuture").await;
    let revocations: Api<ConfigMap> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    assert!(revocations.get_opt(&format!("tenant-{uid}-revocations")).await.unwrap().is_none());
    let kept = token(&client, &name, "the same token", |_| true).await.1;
    assert_eq!(kept.mcp_fleet.serial, first.mcp_fleet.serial);
}
