//! Credentials of principals, as files instead of Secrets.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use mcp_fleet_crds::{MCPPrincipal, MCPTenant};
use ulid::Ulid;

use super::LocalError;
use super::tenant::Tenant;
use crate::credentials::tokens::plan::{Current, Lifetime, Plan, TokenIdentity, plan, rotates_at};
use crate::credentials::tokens::{entries, sign, verify};

/// What is to be done about a credential.
#[derive(Debug)]
pub enum Credential {
    /// Nothing before this time has passed.
    Keep(Duration),
    /// These files have to be written: name and content.
    Issue {
        /// The files.
        entries: Vec<(&'static str, String)>,
        /// When the credential has to be looked at again.
        check_in: Duration,
    },
}

/// Decides what is to be done about the credential of a principal. `token` is the one that it has.
pub(super) fn decide(
    tenant: &Tenant,
    owner: &MCPTenant,
    principal: &MCPPrincipal,
    (ca, url, issuer): (&str, &str, String),
    token: Option<&str>,
) -> Result<Credential, LocalError> {
    let now = Timestamp::now().as_second();
    let uid = principal.uid().unwrap_or_default();
    let identity = TokenIdentity {
        issuer,
        audience: url.to_owned(),
        subject: format!("{}/{}", principal.namespace().unwrap_or_default(), principal.name_any()),
        principal: uid.clone(),
        tenant: owner.uid().unwrap_or_default(),
        kid: tenant.keys.kid.clone(),
    };
    let lifetime = Lifetime::of(&owner.spec.credentials);
    let current = token.and_then(|token| verify(token, &tenant.keys)).map(|(kid, claims)| Current { claims, kid });
    let revoked_until = tenant.revocations.get(&uid).copied();
    match plan(current.as_ref(), &identity, lifetime, 0, revoked_until, now) {
        Plan::Keep { rotate_in: wait } | Plan::Wait { wait } => Ok(Credential::Keep(wait)),
        Plan::Issue { serial, cause: _ } => {
            let exp = lifetime.end(now);
            let claims = identity.claims(serial, Ulid::generate().to_string(), (now, exp));
            let token = sign(&claims, &tenant.keys).map_err(|error| LocalError::Publish(error.into()))?;
            let rotates_at = rotates_at(exp, lifetime);
            let check_in = Duration::from_secs(u64::try_from(rotates_at.saturating_sub(now)).unwrap_or(1).max(1));
            Ok(Credential::Issue { entries: entries(ca, (url, None), &token, exp, rotates_at), check_in })
        }
    }
}
