//! Step two: from an `MCPPrincipal`, its tenant and its Secret to a principal that may have a credential. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_crds::condition::ConditionReason;

use super::dereference::{Facts, secret_name};
use super::plan::{Current, Identity, Lifetime};
use crate::config::{Config, gateway_origin};
use crate::controllers::error::ReconcileError;
use crate::credentials::tokens::{TenantKeys, verify};
use crate::kubernetes::labels::{self, Labels};

/// A principal that may have a credential.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The tenant's name.
    pub tenant: String,
    /// The tenant's UID.
    pub tenant_uid: String,
    /// What its tokens say; the key is filled in when it is known.
    pub identity: Identity,
    /// How long they are good.
    pub lifetime: Lifetime,
    /// Every call is refused.
    pub suspended: bool,
    /// What was asked to be revoked.
    pub revoke_issued_before: Option<Timestamp>,
}

impl Principal {
    /// The labels of the Secret.
    pub(crate) fn labels(&self) -> Labels {
        let mut labels = labels::of_tenant("credential", &self.tenant, &self.tenant_uid);
        labels.insert(labels::PRINCIPAL.into(), self.name.clone());
        labels.insert(labels::PRINCIPAL_UID.into(), self.uid.clone());
        labels
    }
}

/// Why a principal may not have a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For the condition.
    pub reason: ConditionReason,
    /// What to do.
    pub message: String,
    /// Whether it may come right without a change to the principal.
    pub waiting: bool,
}

/// Checks it.
pub(crate) fn validate(
    object: &MCPPrincipal,
    facts: &Facts,
    config: &Config,
) -> Result<Result<Principal, Refusal>, ReconcileError> {
    let name = object.metadata.name.clone().ok_or(ReconcileError::Incomplete("metadata.name"))?;
    let uid = object.metadata.uid.clone().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    let namespace = object.metadata.namespace.clone().ok_or(ReconcileError::Incomplete("metadata.namespace"))?;
    let refuse = |reason, message: String, waiting| Ok(Err(Refusal { reason, message, waiting }));
    let Some(tenant) = &facts.tenant else {
        let message = format!("no MCPTenant owns the namespace {namespace}; no credential is issued");
        return refuse(ConditionReason::NamespaceUnclaimed, message, false);
    };
    let tenant_name = tenant.metadata.name.clone().ok_or(ReconcileError::Incomplete("metadata.name"))?;
    let tenant_uid = tenant.metadata.uid.clone().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    if tenant.metadata.deletion_timestamp.is_some() || !facts.prepared {
        let message = format!("the namespaces of the tenant {tenant_name} are not prepared, or it is being deleted");
        return refuse(ConditionReason::TenantNotReady, message, true);
    }
    if let Some(secret) = &facts.secret
        && !is_ours(secret, &uid)
    {
        let message = format!(
            "a Secret {} exists that was not made for this principal; it is not touched: delete or rename it",
            secret_name(&name)
        );
        return refuse(ConditionReason::SecretNotOwned, message, false);
    }
    let seconds = |window: std::time::Duration| i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
    let credentials = &tenant.spec.credentials;
    Ok(Ok(Principal {
        identity: Identity {
            issuer: config.issuer(&tenant_uid),
            audience: gateway_origin(&tenant.runtime_namespace()),
            subject: format!("{namespace}/{name}"),
            principal: uid.clone(),
            tenant: tenant_uid.clone(),
            kid: String::new(),
        },
        lifetime: Lifetime {
            lifetime: seconds(credentials.lifetime.get()),
            overlap: seconds(credentials.overlap.get()),
        },
        namespace,
        name,
        uid,
        tenant: tenant_name,
        tenant_uid,
        suspended: object.spec.suspend,
        revoke_issued_before: object.spec.revoke_issued_before.as_ref().map(|time| time.0),
    }))
}

fn is_ours(secret: &Secret, uid: &str) -> bool {
    secret.metadata.labels.as_ref().and_then(|labels| labels.get(labels::PRINCIPAL_UID)).is_some_and(|it| it == uid)
}

/// The token in the Secret, if the tenant's key signed it.
pub(crate) fn token(secret: &Secret, keys: &TenantKeys) -> Option<Current> {
    let token = secret.data.as_ref()?.get("token")?;
    let (kid, claims) = verify(std::str::from_utf8(&token.0).ok()?, keys)?;
    Some(Current { claims, kid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::principal::tests::{config, facts, principal};

    fn reason(facts: &Facts) -> Option<ConditionReason> {
        validate(&principal(), facts, &config()).unwrap().err().map(|refusal| refusal.reason)
    }

    fn secret(uid: Option<&str>) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.labels = uid.map(|uid| [(labels::PRINCIPAL_UID.to_owned(), uid.to_owned())].into());
        secret
    }

    #[test]
    fn a_secret_that_was_there_before_is_never_adopted() {
        assert_eq!(reason(&Facts { secret: Some(secret(None)), ..facts() }), Some(ConditionReason::SecretNotOwned));
        let former = Facts { secret: Some(secret(Some("p-0"))), ..facts() };
        assert_eq!(reason(&former), Some(ConditionReason::SecretNotOwned));
        assert_eq!(reason(&Facts { secret: Some(secret(Some("p-1"))), ..facts() }), None);
    }

    #[test]
    fn a_principal_in_an_unclaimed_namespace_gets_nothing() {
        let nobody = Facts { tenant: None, ..facts() };
        assert_eq!(reason(&nobody), Some(ConditionReason::NamespaceUnclaimed));
    }

    #[test]
    fn tokens_are_for_the_tenants_endpoint_alone() {
        let checked = validate(&principal(), &facts(), &config()).unwrap().unwrap();
        assert_eq!(checked.identity.audience, "https://gateway.acme-mcp.svc");
        assert_eq!(checked.identity.subject, "acme/coder");
        assert_eq!((checked.lifetime.lifetime, checked.lifetime.overlap), (3600, 600));
    }
}
