//! Public names: when one is taken into use, and what happens when it is removed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use mcp_fleet_control::wire::{PublicCertificate, PublicCertificates, from_gateway};
use mcp_fleet_crds::{MCPTenant, MCPTenantStatus};
use serde_json::{Value, json};

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::{create, eventually, tenant, unique, wait_for, wait_for_reason, with_operator};

async fn set_endpoint(client: &Client, name: &str, endpoint: Value) {
    let patch = Patch::Merge(json!({"spec": {"endpoint": endpoint}}));
    Api::<MCPTenant>::all(client.clone()).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn status(client: &Client, name: &str) -> MCPTenantStatus {
    Api::<MCPTenant>::all(client.clone()).get(name).await.unwrap().status.unwrap()
}

/// Returns a value of the credential of the principal `coder`.
async fn credential(client: &Client, namespace: &str, key: &str) -> Option<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let data = secrets.get_opt("coder-mcp-credential").await.unwrap()?.data?;
    Some(String::from_utf8(data.get(key)?.0.clone()).unwrap())
}

#[tokio::test]
async fn a_public_name_is_taken_into_use_when_the_gateway_serves_it() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let (tenants, runtime) = (Api::<MCPTenant>::all(client.clone()), format!("{name}-mcp"));
    let (hostname, origin) = (format!("{name}.example.com"), format!("https://{name}.example.com"));
    let endpoint = || json!({"hostname": hostname, "certificateSecretRef": {"name": "public"}});
    let mut gateway = Gateway::connect(&client, &runtime).await;
    set_endpoint(&client, &name, endpoint()).await;
    let accepts = |origin: &str| {
        let origin = origin.to_owned();
        move |policy: &mcp_fleet_policy::model::TenantPolicy| policy.other_audiences.contains(&origin)
    };
    gateway.policy(accepts(&origin)).await;
    wait_for_reason(&tenants, &name, "EndpointReady", "CertificateMissing").await;

    let pair = rcgen::generate_simple_self_signed([hostname.clone()]).unwrap();
    let secret = json!({
        "metadata": {"name": "public", "namespace": name}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": pair.cert.pem(), "tls.key": pair.signing_key.serialize_pem()},
    });
    create(&Api::<Secret>::namespaced(client.clone(), &name), secret).await;
    let copy = wait_for(&Api::<Secret>::namespaced(client.clone(), &runtime), "gateway-public-tls").await;
    assert_eq!(copy.data.unwrap()["tls.crt"].0, pair.cert.pem().into_bytes());
    wait_for_reason(&tenants, &name, "EndpointReady", "AwaitingGateway").await;
    assert_eq!((status(&client, &name).await.public_name, credential(&client, &name, "publicUrl").await), (None, None));

    let not_after = Timestamp::now().as_second() + 3600;
    let served = vec![PublicCertificate { hostname: hostname.clone(), sha256: vec![1; 32], not_after }];
    gateway.send(from_gateway::Message::PublicCertificates(PublicCertificates { served })).await;
    wait_for_reason(&tenants, &name, "EndpointReady", "Serving").await;
    assert_eq!(status(&client, &name).await.public_name.as_deref(), Some(&*hostname));
    eventually("the credential has the public URL", || async {
        (credential(&client, &name, "publicUrl").await.as_ref() == Some(&origin)).then_some(())
    })
    .await;
    assert_eq!(credential(&client, &name, "url").await, Some(format!("https://gateway.{runtime}.svc")));

    // Who comes later does not get the name.
    let rival = unique("rival");
    tenant(&client, &rival, json!({"endpoint": endpoint()})).await;
    let message = wait_for_reason(&tenants, &rival, "EndpointReady", "HostnameTaken").await;
    assert!(message.contains(&name), "{message}");

    set_endpoint(&client, &name, Value::Null).await;
    eventually("the credential has no public URL any more", || async {
        credential(&client, &name, "publicUrl").await.is_none().then_some(())
    })
    .await;
    let status = status(&client, &name).await;
    assert_eq!((status.public_name, status.former_urls.len()), (None, 1));
    assert_eq!(status.former_urls[0].url, origin);
    assert!(status.former_urls[0].accepted_until.0.as_second() > Timestamp::now().as_second() + 167 * 3600);
    // A gateway that starts now still accepts it.
    drop(gateway);
    let mut later = Gateway::connect(&client, &runtime).await;
    later.policy(accepts(&origin)).await;
}
