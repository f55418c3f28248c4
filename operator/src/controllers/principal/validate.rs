//! Step two: turns an `MCPPrincipal`, its tenant and its Secret into a principal that may have a credential, or rejects it.
//! Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use mcp_fleet_core::credentials::tokens::plan::{Current, Lifetime, TokenIdentity};
use mcp_fleet_core::credentials::tokens::{TenantKeys, verify};
use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::public_name::{Names, origin};
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_crds::condition::ConditionReason;

use super::dereference::{Inputs, secret_name};
use crate::config::{Config, gateway_origin};
use crate::controllers::identity::ObjectId;
use crate::controllers::outcome::{Rejection, Until};

/// A principal that may have a credential.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub id: ObjectId,
    pub namespace: String,
    /// The tenant that owns the principal's namespace.
    pub tenant: ObjectId,
    /// `iss` of its tokens.
    pub issuer: String,
    /// URL of the gateway in the cluster, and `aud` of its tokens while there is no public name.
    pub url: String,
    /// URL of the gateway under the public name in use, and then `aud` of its tokens.
    pub public_url: Option<String>,
    /// How long its tokens are valid.
    pub lifetime: Lifetime,
    /// Whether every call is refused.
    pub suspended: bool,
    /// The revocation that the spec requests.
    pub revoke_issued_before: Option<Timestamp>,
}

impl Principal {
    /// Returns the claims of the principal's tokens that are signed with a key.
    pub(crate) fn identity(&self, kid: &str) -> TokenIdentity {
        TokenIdentity {
            issuer: self.issuer.clone(),
            audience: self.public_url.as_ref().unwrap_or(&self.url).clone(),
            subject: format!("{}/{}", self.namespace, self.id.name),
            principal: self.id.uid.clone(),
            tenant: self.tenant.uid.clone(),
            kid: kid.to_owned(),
        }
    }

    /// Returns the labels of the Secret.
    pub(crate) fn labels(&self) -> Labels {
        let mut labels = labels::of_tenant("credential", &self.tenant.name, &self.tenant.uid);
        labels.insert(labels::PRINCIPAL.into(), self.id.name.clone());
        labels.insert(labels::PRINCIPAL_UID.into(), self.id.uid.clone());
        labels
    }
}

/// Checks whether a principal may have a credential.
pub(crate) fn validate(object: &MCPPrincipal, inputs: &Inputs, config: &Config) -> Result<Principal, Rejection> {
    let ObjectId { name, uid } = &inputs.id;
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let reject = |reason, message: String, until| Err(Rejection { reason, message, until });
    let Some(owner) = &inputs.owner else {
        let message = format!("no MCPTenant owns the namespace {namespace}; no credential is issued");
        return reject(ConditionReason::NamespaceUnclaimed, message, Until::Changed);
    };
    if owner.is_being_deleted() || !inputs.prepared {
        let message =
            format!("the namespaces of the tenant {} are not prepared, or it is being deleted", owner.id.name);
        return reject(ConditionReason::TenantNotReady, message, Until::Prepared);
    }
    if let Some(secret) = &inputs.secret
        && !is_ours(secret, uid)
    {
        let message = format!(
            "a Secret {} exists that was not made for this principal; it is not touched: delete or rename it",
            secret_name(name)
        );
        return reject(ConditionReason::SecretNotOwned, message, Until::Changed);
    }
    Ok(Principal {
        issuer: config.issuer(&owner.id.uid),
        url: gateway_origin(&owner.tenant.runtime_namespace()),
        public_url: Names::of(&owner.tenant).in_use.map(origin),
        lifetime: Lifetime::of(&owner.tenant.spec.credentials),
        id: inputs.id.clone(),
        namespace,
        tenant: owner.id.clone(),
        suspended: object.spec.suspend,
        revoke_issued_before: object.spec.revoke_issued_before.as_ref().map(|time| time.0),
    })
}

fn is_ours(secret: &Secret, uid: &str) -> bool {
    secret.metadata.labels.as_ref().and_then(|labels| labels.get(labels::PRINCIPAL_UID)).is_some_and(|it| it == uid)
}

/// Returns the token in a Secret, if the tenant's key signed it.
pub(crate) fn token(secret: &Secret, keys: &TenantKeys) -> Option<Current> {
    let token = secret.data.as_ref()?.get("token")?;
    let (kid, claims) = verify(std::str::from_utf8(&token.0).ok()?, keys)?;
    Some(Current { claims, kid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::principal::tests::{config, inputs, principal};

    fn reason(inputs: &Inputs) -> Option<ConditionReason> {
        validate(&principal(), inputs, &config()).err().map(|rejection| rejection.reason)
    }

    fn secret(uid: Option<&str>) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.labels = uid.map(|uid| [(labels::PRINCIPAL_UID.to_owned(), uid.to_owned())].into());
        secret
    }

    #[test]
    fn an_existing_secret_is_never_adopted() {
        assert_eq!(reason(&Inputs { secret: Some(secret(None)), ..inputs() }), Some(ConditionReason::SecretNotOwned));
        let former = Inputs { secret: Some(secret(Some("p-0"))), ..inputs() };
        assert_eq!(reason(&former), Some(ConditionReason::SecretNotOwned));
        assert_eq!(reason(&Inputs { secret: Some(secret(Some("p-1"))), ..inputs() }), None);
    }

    #[test]
    fn a_principal_in_an_unclaimed_namespace_gets_nothing() {
        let unclaimed = Inputs { owner: None, ..inputs() };
        assert_eq!(reason(&unclaimed), Some(ConditionReason::NamespaceUnclaimed));
    }

    #[test]
    fn tokens_are_for_the_tenants_endpoint_alone() {
        let checked = validate(&principal(), &inputs(), &config()).unwrap();
        assert_eq!(checked.identity("k-1").audience, "https://gateway.acme-mcp.svc");
        assert_eq!(checked.identity("k-1").subject, "acme/coder");
        assert_eq!((checked.lifetime.lifetime, checked.lifetime.overlap), (3600, 600));
    }

    #[test]
    fn tokens_are_for_the_public_name_while_it_is_in_use() {
        let named = |status: serde_json::Value| {
            let mut inputs = inputs();
            let owner = inputs.owner.as_mut().unwrap();
            let tenant = std::sync::Arc::make_mut(&mut owner.tenant);
            tenant.spec.endpoint.hostname = Some("new.example.com".into());
            tenant.status = serde_json::from_value(status).unwrap();
            let checked = validate(&principal(), &inputs, &config()).unwrap();
            (checked.identity("k-1").audience, checked.url)
        };
        let url = "https://gateway.acme-mcp.svc".to_owned();
        assert_eq!(named(serde_json::json!({})), (url.clone(), url.clone()), "it is only wanted");
        let in_use = serde_json::json!({"publicName": "mcp.example.com"});
        assert_eq!(named(in_use), ("https://mcp.example.com".to_owned(), url));
    }
}
