//! Reads the certificate of a public name from the Secret of the tenant's people, and checks it like the gateway will.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use mcp_fleet_certificate::check;
use mcp_fleet_core::labels;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::condition::ConditionReason as Reason;

use crate::context::Context;
use crate::error;

/// The type that Kubernetes and cert-manager give such Secrets.
const TYPE: &str = "kubernetes.io/tls";

/// A chain and a key in PEM that may be served for the name.
pub(super) struct Pair {
    pub(super) chain: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// Why there is no certificate to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: Reason,
    pub(super) message: String,
}

fn problem(reason: Reason, message: impl Into<String>) -> Problem {
    Problem { reason, message: message.into() }
}

/// Reads and checks the certificate for a host name. A request that fails is a problem like any other: it must not keep
/// the tenant's other objects from being applied.
pub(super) async fn read(ctx: &Context, object: &MCPTenant, hostname: &str, now: Timestamp) -> Result<Pair, Problem> {
    let Some(reference) = &object.spec.endpoint.certificate_secret_ref else {
        return Err(problem(Reason::CertificateMissing, "endpoint.certificateSecretRef is not set; set it"));
    };
    let (namespace, name) = (&object.spec.namespace.name, &reference.name);
    if !ctx.cache.has_access(namespace) {
        let message = format!("the operator's access to the namespace {namespace} is being prepared");
        return Err(problem(Reason::Progressing, message));
    }
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(Some(secret)) => inspect(&secret, hostname, now),
        Ok(None) => {
            let message = format!("the Secret {name} does not exist in the namespace {namespace}; create it there");
            Err(problem(Reason::CertificateMissing, message))
        }
        Err(error) => {
            let message = format!("failed to read the Secret {name}: {}", error::chain(&error));
            Err(problem(Reason::Failed, message))
        }
    }
}

/// Checks the Secret that the tenant names.
fn inspect(secret: &Secret, hostname: &str, now: Timestamp) -> Result<Pair, Problem> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let refused = |why: &str| problem(Reason::CertificateRefused, format!("the Secret {name} is not used: {why}"));
    if secret.metadata.labels.as_ref().is_some_and(labels::are_ours) {
        return Err(refused("MCP Fleet made it for something else; name another one"));
    }
    if secret.type_.as_deref() != Some(TYPE) {
        return Err(refused("its type is not kubernetes.io/tls; store the pair in one of that type"));
    }
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.clone());
    let (chain, key) = (value("tls.crt").unwrap_or_default(), value("tls.key").unwrap_or_default());
    match check(&chain, &key, hostname, now.as_second()) {
        Ok(_) => Ok(Pair { chain, key }),
        Err(refusal) => Err(refused(&refusal.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAME: &str = "mcp.example.com";

    fn secret(change: impl FnOnce(&mut Secret)) -> Secret {
        let mut secret: Secret = serde_json::from_value(json!({"metadata": {"name": "public"}, "type": TYPE})).unwrap();
        let pair = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let data =
            [("tls.crt", pair.cert.pem()), ("tls.key", pair.signing_key.serialize_pem()), ("ca.crt", "x".into())];
        let bytes = |text: String| k8s_openapi::ByteString(text.into_bytes());
        secret.data = Some(data.into_iter().map(|(key, value)| (key.to_owned(), bytes(value))).collect());
        change(&mut secret);
        secret
    }

    fn refusal(hostname: &str, change: impl FnOnce(&mut Secret)) -> Option<(Reason, String)> {
        let found = inspect(&secret(change), hostname, Timestamp::now());
        found.err().map(|problem| (problem.reason, problem.message))
    }

    #[test]
    fn a_secret_with_a_certificate_for_the_name_is_used() {
        assert_eq!(refusal(NAME, |_| {}), None);
        let (reason, message) = refusal("other.example.com", |_| {}).unwrap();
        assert_eq!(reason, Reason::CertificateRefused);
        assert!(message.contains("the Secret public") && message.contains("other.example.com"), "{message}");
    }

    #[test]
    fn a_secret_of_another_purpose_is_not_used() {
        let opaque = refusal(NAME, |secret| secret.type_ = Some("Opaque".into()));
        assert!(opaque.unwrap().1.contains("kubernetes.io/tls"));
        let ours = refusal(NAME, |secret| secret.metadata.labels = Some(labels::common("credential")));
        assert!(ours.unwrap().1.contains("MCP Fleet made it"));
        assert!(refusal(NAME, |secret| secret.data = None).unwrap().1.contains("tls.crt contains no certificate"));
    }
}
