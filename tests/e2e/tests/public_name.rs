//! A public name on a real cluster: from the Secret of the platform team to the certificate that a client sees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use mcp_fleet_crds::condition::{ConditionType, is_true};
use mcp_fleet_crds::{MCPTenant, MCPTenantStatus};
use mcp_fleet_e2e::{Answer, Caller, FaultTenant, NAMESPACE, RUNTIME, credential, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

const NAME: &str = "mcp.faults.example.com";
const URL: &str = "https://mcp.faults.example.com";
/// The operator reads the Secret at least once a minute, the kubelet mounts the copy within two, and the gateway reads it
/// twice a minute.
const SERVED_WITHIN: Duration = Duration::from_secs(300);

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Stores a new certificate for the name in the tenant's namespace. Returns it in DER.
async fn store(tenant: &FaultTenant, ca: &Ca) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "public"},
        "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
    });
    let secrets: Api<Secret> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    secrets.patch("public", &PatchParams::apply("fault-tests").force(), &Patch::Apply(&secret)).await.unwrap();
    certificate.der().to_vec()
}

/// Returns the audience that a token names.
fn audience(token: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["aud"].take()
}

async fn set_endpoint(tenant: &FaultTenant, endpoint: Value) {
    let patch = Patch::Merge(json!({"spec": {"endpoint": endpoint}}));
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    tenants.patch(NAMESPACE, &PatchParams::default(), &patch).await.unwrap();
}

async fn status(tenant: &FaultTenant) -> anyhow::Result<MCPTenantStatus> {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    Ok(tenants.get(NAMESPACE).await?.status.unwrap_or_default())
}

/// Calls a tool with a token, under the public name or under the name in the cluster.
async fn call(tenant: &FaultTenant, url: &str, ca: &str, token: &str) {
    let caller = Caller::with(&tenant.client, RUNTIME, url, ca, token).await.unwrap();
    let answer = caller.call_with_word("quiet", "echo", "named").await;
    assert!(matches!(&answer, Answer::Text(text) if text == "named"), "{url}: {answer:?}");
}

#[tokio::test]
async fn a_public_name_is_taken_into_use_renewed_and_given_up() {
    let (tenant, ca) = (FaultTenant::ready().await.unwrap(), ca());
    let before = credential(&tenant.client, NAMESPACE, "first").await.unwrap();
    let first = store(&tenant, &ca).await;
    set_endpoint(&tenant, json!({"hostname": NAME, "certificateSecretRef": {"name": "public"}})).await;
    until("the public name to be served", SERVED_WITHIN, || async {
        Ok(is_true(&status(&tenant).await?.conditions, ConditionType::EndpointReady).then_some(()))
    })
    .await
    .unwrap();
    let named = until("the credential to have the public URL", Duration::from_secs(60), || async {
        let credential = credential(&tenant.client, NAMESPACE, "first").await?;
        Ok(credential.contains_key("publicUrl").then_some(credential))
    })
    .await
    .unwrap();
    assert_eq!((named["publicUrl"].as_str(), &named["url"]), (URL, &before["url"]));
    assert_ne!(audience(&before["token"]), json!(URL));
    assert_eq!(audience(&named["token"]), json!(URL));
    // Each token is accepted under each name.
    for token in [&before["token"], &named["token"]] {
        call(&tenant, URL, &ca.pem(), token).await;
        call(&tenant, &before["url"], &before["ca.crt"], token).await;
    }

    let served = async || {
        let caller = Caller::with(&tenant.client, RUNTIME, URL, &ca.pem(), &named["token"]).await?;
        caller.certificate().await
    };
    assert_eq!(served().await.unwrap(), first);
    let second = store(&tenant, &ca).await;
    until("the renewed certificate to be served", SERVED_WITHIN, || async {
        Ok((served().await? == second).then_some(()))
    })
    .await
    .unwrap();

    set_endpoint(&tenant, Value::Null).await;
    until("the public name to be given up", Duration::from_secs(60), || async {
        let status = status(&tenant).await?;
        Ok((status.public_name.is_none() && status.former_urls.iter().any(|one| one.url == URL)).then_some(()))
    })
    .await
    .unwrap();
    call(&tenant, URL, &ca.pem(), &named["token"]).await;
    call(&tenant, &before["url"], &before["ca.crt"], &named["token"]).await;
}
