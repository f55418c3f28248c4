//! Step four: the credential's Secret, made once and then replaced on the version that was read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::{ObjectMeta, PostParams};
use mcp_fleet_crds::MCPPrincipal;
use ulid::Ulid;

use super::dereference::secret_name;
use super::plan::rotates_at;
use super::validate::Principal;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::credentials::tokens::{Claims, McpFleetClaims, TenantKeys, sign};
use crate::kubernetes::FIELD_MANAGER;

/// A token that was issued: when, and with which serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// Its serial.
    pub serial: i64,
    /// `iat`, Unix seconds.
    pub iat: i64,
    /// When the next one comes, Unix seconds.
    pub rotates_at: i64,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
}

impl Issued {
    /// The token that is in the Secret.
    pub(crate) fn of(claims: &Claims, principal: &Principal) -> Self {
        Self {
            serial: claims.mcp_fleet.serial,
            iat: claims.iat,
            rotates_at: rotates_at(claims.exp, principal.lifetime),
            expires_at: claims.exp,
        }
    }
}

/// Issues a token, and writes it.
pub(crate) async fn issue(
    ctx: &Context,
    object: &MCPPrincipal,
    principal: &Principal,
    keys: &TenantKeys,
    before: Option<&Secret>,
    serial: i64,
    now: i64,
) -> Result<Issued, ReconcileError> {
    let identity = &principal.identity;
    let claims = Claims {
        iss: identity.issuer.clone(),
        aud: identity.audience.clone(),
        sub: identity.subject.clone(),
        jti: Ulid::generate().to_string(),
        iat: now,
        exp: now.saturating_add(principal.lifetime.lifetime),
        mcp_fleet: McpFleetClaims { principal: identity.principal.clone(), tenant: identity.tenant.clone(), serial },
    };
    let token = sign(&claims, keys)?;
    let issued = Issued::of(&claims, principal);
    write(ctx, object, principal, before, &token, issued).await?;
    Ok(issued)
}

/// Writes the Secret anew where what stands beside the token is not as it should be.
pub(crate) async fn mend(
    ctx: &Context,
    object: &MCPPrincipal,
    principal: &Principal,
    before: &Secret,
    issued: Issued,
) -> Result<bool, ReconcileError> {
    let token = before.data.as_ref().and_then(|data| data.get("token")).map(|token| token.0.clone());
    let Some(token) = token.and_then(|token| String::from_utf8(token).ok()) else { return Ok(false) };
    let want = render(ctx.ca.certificate_pem(), object, principal, Some(before), &token, issued);
    if want.data == before.data
        && want.metadata.labels == before.metadata.labels
        && want.metadata.owner_references == before.metadata.owner_references
    {
        return Ok(false);
    }
    write(ctx, object, principal, Some(before), &token, issued).await?;
    Ok(true)
}

async fn write(
    ctx: &Context,
    object: &MCPPrincipal,
    principal: &Principal,
    before: Option<&Secret>,
    token: &str,
    issued: Issued,
) -> Result<(), ReconcileError> {
    let api = crate::controllers::status::namespaced::<Secret>(&ctx.client, &principal.namespace);
    let secret = render(ctx.ca.certificate_pem(), object, principal, before, token, issued);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let written = match before {
        None => api.create(&params, &secret).await,
        Some(_) => api.replace(&secret_name(&principal.name), &params, &secret).await,
    };
    written.map(|_| ()).map_err(ReconcileError::api("write the credential's Secret"))
}

fn render(
    ca: &str,
    object: &MCPPrincipal,
    principal: &Principal,
    before: Option<&Secret>,
    token: &str,
    issued: Issued,
) -> Secret {
    let entries = [
        ("token", token.to_owned()),
        ("url", principal.identity.audience.clone()),
        ("expiresAt", rfc3339(issued.expires_at)),
        ("rotatesAt", rfc3339(issued.rotates_at)),
        ("ca.crt", ca.to_owned()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&principal.name)),
            namespace: Some(principal.namespace.clone()),
            labels: Some(principal.labels()),
            // The same namespace, so Kubernetes itself deletes it with the principal.
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

/// RFC 3339, in UTC.
fn rfc3339(second: i64) -> String {
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::principal::tests::{checked, principal};

    #[test]
    fn the_secret_holds_what_a_client_needs() {
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
    }
}
