//! Step four: writes the Secret with the credential. The Secret is created once, and later replaced only over the version
//! that was read.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource};
use mcp_fleet_core::credentials::tokens::plan::Token;
use mcp_fleet_core::credentials::tokens::plan::{Cause, Current, Plan, rotates_at};
use mcp_fleet_core::credentials::tokens::{Claims, TenantKeys, entries, sign};
use mcp_fleet_core::retry::jittered;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_crds::MCPPrincipal;
use ulid::Ulid;

use super::dereference::secret_name;
use super::validate::Principal;
use crate::context::Context;
use crate::controllers::enforcement::Enforcement;
use crate::controllers::error::ReconcileError;
use crate::kubernetes::FIELD_MANAGER;

/// What is known of a principal after the apply step.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub principal: Principal,
    /// The token in the Secret; none while none can be issued.
    pub issued: Option<Issued>,
    /// Tokens issued until this Unix second are refused.
    pub revoked_until: Option<i64>,
    /// When the credential has to be checked again.
    pub check_in: Duration,
    pub enforcement: Enforcement,
}

/// An issued token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub serial: i64,
    /// `iat`, Unix seconds.
    pub iat: i64,
    /// When the next token is issued, Unix seconds.
    pub rotates_at: i64,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
}

impl Issued {
    /// Describes a token by its claims.
    fn of(claims: &Claims, principal: &Principal) -> Self {
        Self {
            serial: claims.mcp_fleet.serial,
            iat: claims.iat,
            rotates_at: rotates_at(claims.exp, principal.lifetime),
            expires_at: claims.exp,
        }
    }
}

/// What the apply step starts from.
pub(crate) struct Credential<'a> {
    /// Keys of the tenant.
    pub keys: &'a TenantKeys,
    /// The Secret as it was read; none if there is none, or if its token is known without reading it.
    pub secret: Option<&'a Secret>,
    /// Digest of everything else that the Secret contains.
    pub digest: Option<u128>,
    /// The token in that Secret, if the tenant's key signed it.
    pub current: Option<Current>,
    /// Tokens issued until this Unix second are refused.
    pub revoked_until: Option<i64>,
    /// Unix seconds.
    pub now: i64,
}

/// Carries out the plan for a principal's credential.
pub(crate) async fn apply(
    ctx: &Context,
    object: &MCPPrincipal,
    principal: Principal,
    credential: &Credential<'_>,
    plan: Plan,
) -> Result<Applied, ReconcileError> {
    let (issued, check_in) = match plan {
        Plan::Keep { rotate_in } => {
            let issued = credential.current.as_ref().map(|current| Issued::of(&current.claims, &principal));
            if let (Some(issued), Some(secret)) = (issued, credential.secret) {
                restore(ctx, object, &principal, credential, secret, issued).await?;
            }
            (issued, rotate_in + spread(rotate_in))
        }
        Plan::Wait { wait } => (None, wait),
        Plan::Issue { serial, cause } => {
            let issued = issue(ctx, object, &principal, credential, serial).await?;
            let reason = match cause {
                Cause::Rotation => "CredentialRotated",
                Cause::Missing | Cause::Revoked | Cause::Outdated => "CredentialIssued",
            };
            ctx.events.normal(object, reason, "Issue", format!("token {serial} is in the Secret")).await;
            let rotate_in = Duration::from_secs(u64::try_from(issued.rotates_at - credential.now).unwrap_or(1));
            (Some(issued), rotate_in + spread(rotate_in))
        }
    };
    let (tenant_uid, uid) = (&principal.tenant.uid, &principal.id.uid);
    let enforcement = Enforcement::read(&ctx.shared_state, tenant_uid, Kind::Principal, uid);
    Ok(Applied { principal, issued, revoked_until: credential.revoked_until, check_in, enforcement })
}

/// Returns a short delay for a rotation, so that principals that were created together are not rotated together: at most
/// a hundredth of the time that is left, and at most five seconds.
fn spread(rotate_in: Duration) -> Duration {
    let jitter = jittered(rotate_in).abs_diff(rotate_in);
    (jitter / 25).min(Duration::from_secs(5))
}

/// Issues a token and writes it to the Secret.
async fn issue(
    ctx: &Context,
    object: &MCPPrincipal,
    principal: &Principal,
    credential: &Credential<'_>,
    serial: i64,
) -> Result<Issued, ReconcileError> {
    let times = (credential.now, principal.lifetime.end(credential.now));
    let claims = principal.identity(&credential.keys.kid).claims(serial, Ulid::generate().to_string(), times);
    let token = sign(&claims, credential.keys)?;
    let issued = Issued::of(&claims, principal);
    write(ctx, object, principal, credential, &token, issued).await?;
    Ok(issued)
}

/// Writes the Secret again if anything in it besides the token was changed.
async fn restore(
    ctx: &Context,
    object: &MCPPrincipal,
    principal: &Principal,
    credential: &Credential<'_>,
    before: &Secret,
    issued: Issued,
) -> Result<(), ReconcileError> {
    let token = before.data.as_ref().and_then(|data| data.get("token")).map(|token| token.0.clone());
    let Some(token) = token.and_then(|token| String::from_utf8(token).ok()) else { return Ok(()) };
    let wanted = render(ctx.ca.certificate_pem(), object, principal, Some(before), &token, issued);
    if wanted.data == before.data
        && wanted.metadata.labels == before.metadata.labels
        && wanted.metadata.owner_references == before.metadata.owner_references
    {
        remember(ctx, credential, before, issued);
        return Ok(());
    }
    write(ctx, object, principal, credential, &token, issued).await
}

async fn write(
    ctx: &Context,
    object: &MCPPrincipal,
    principal: &Principal,
    credential: &Credential<'_>,
    token: &str,
    issued: Issued,
) -> Result<(), ReconcileError> {
    let (before, name) = (credential.secret, secret_name(&principal.id.name));
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &principal.namespace);
    let secret = render(ctx.ca.certificate_pem(), object, principal, before, token, issued);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let written = match before {
        None => api.create(&params, &secret).await,
        Some(_) => api.replace(&name, &params, &secret).await,
    };
    if written.is_err() {
        // There may be another Secret of that name, of someone else, or newer.
        ctx.cache.secrets.doubt(&principal.namespace, &name);
    }
    remember(ctx, credential, &written.map_err(ReconcileError::api("write the credential's Secret"))?, issued);
    Ok(())
}

/// Records which token the Secret has, so that it is not read again until someone changes it.
fn remember(ctx: &Context, credential: &Credential<'_>, secret: &Secret, issued: Issued) {
    let token = Token { serial: issued.serial, iat: issued.iat, expires_at: issued.expires_at };
    if let Some(digest) = credential.digest {
        ctx.cache.secrets.verify(&secret.metadata, digest, Some(token));
    }
}

fn render(
    ca: &str,
    object: &MCPPrincipal,
    principal: &Principal,
    before: Option<&Secret>,
    token: &str,
    issued: Issued,
) -> Secret {
    let entries =
        entries(ca, (&principal.url, principal.public_url.as_deref()), token, issued.expires_at, issued.rotates_at);
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&principal.id.name)),
            namespace: Some(principal.namespace.clone()),
            labels: Some(principal.labels()),
            // Owner and Secret are in the same namespace, so Kubernetes deletes them together.
            owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
            resource_version: before.and_then(|before| before.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                .collect::<BTreeMap<_, _>>(),
        ),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::principal::tests::{checked, principal};

    #[test]
    fn rotation_is_spread_by_a_little() {
        for _ in 0..50 {
            assert!(spread(Duration::from_secs(180)) <= Duration::from_secs(2));
        }
    }

    #[test]
    fn the_secret_contains_what_a_client_needs() {
        let issued = Issued { serial: 1, iat: 0, rotates_at: 3000, expires_at: 3600 };
        let secret = render("CA", &principal(), &checked(), None, "TOKEN", issued);
        let data: BTreeMap<_, _> =
            secret.data.unwrap().into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect();
        let pairs: Vec<_> = data.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("ca.crt", "CA"),
                ("expiresAt", "1970-01-01T01:00:00Z"),
                ("rotatesAt", "1970-01-01T00:50:00Z"),
                ("token", "TOKEN"),
                ("url", "https://gateway.acme-mcp.svc"),
            ]
        );
        assert_eq!(secret.metadata.owner_references.unwrap()[0].uid, "p-1");
        let public_url = Some("https://mcp.example.com".to_owned());
        let named = render("CA", &principal(), &Principal { public_url, ..checked() }, None, "TOKEN", issued);
        let value = |key: &str| String::from_utf8(named.data.as_ref().unwrap()[key].0.clone()).unwrap();
        let urls = ["url", "publicUrl"].map(value);
        assert_eq!(urls, ["https://gateway.acme-mcp.svc", "https://mcp.example.com"]);
    }
}
