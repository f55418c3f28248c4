//! Stores certificates in Secrets. A Secret is created once, and later replaced only if it still has the
//! `resourceVersion` that was read.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use mcp_fleet_core::credentials::ca::{Authority, CaError, LeafRequest, RenewalReason, leaf_renewal_reason};

use super::CA_NAME;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Knowledge, Secrets};

/// Why a Secret with a certificate could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The API server refused or could not be reached.
    #[error("failed to read or write the Secret {name}")]
    Api {
        /// Name of the Secret.
        name: String,
        /// Error of the API server.
        source: kube::Error,
    },
    /// The Secret lacks a key, or its contents are invalid.
    #[error("failed to use the Secret {name}: {reason}")]
    Unusable {
        /// Name of the Secret.
        name: String,
        /// What is wrong with the Secret.
        reason: &'static str,
    },
    /// A Secret of this name exists that the operator did not create.
    #[error("the Secret {name} exists, but MCP Fleet did not create it; delete or rename it")]
    NotOurs {
        /// Name of the Secret.
        name: String,
    },
    /// A certificate could not be created.
    #[error(transparent)]
    Certificate(#[from] CaError),
}

/// Returns the Secret of an authority.
pub(super) fn authority_secret(namespace: &str, authority: &Authority) -> Secret {
    let (certificate, key) = (authority.certificate_pem().as_bytes().to_vec(), authority.key_pem().as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(CA_NAME.into()),
            namespace: Some(namespace.into()),
            labels: Some(mcp_fleet_core::labels::common("operator")),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data([("tls.crt", certificate), ("tls.key", key)])),
        ..Secret::default()
    }
}

/// Parses the authority in its Secret.
pub(super) fn read_authority(secret: &Secret) -> Result<Authority, SecretError> {
    let text = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .and_then(|value| std::str::from_utf8(&value.0).ok())
            .ok_or(SecretError::Unusable { name: CA_NAME.into(), reason: "it lacks tls.crt or tls.key; restore it" })
    };
    Ok(Authority::from_pem(text("tls.crt")?, text("tls.key")?)?)
}

/// A Secret with a leaf certificate, its key, and the authority's certificate.
#[derive(Clone, Debug)]
pub(crate) struct TlsSecret<'a> {
    /// Namespace of the Secret.
    pub namespace: &'a str,
    /// Name of the Secret.
    pub name: &'a str,
    /// Labels of the Secret. The UID labels tell whether an existing Secret belongs to the same owner.
    pub labels: BTreeMap<String, String>,
    /// Contents of the leaf certificate.
    pub request: LeafRequest,
}

/// How long a certificate that nobody changed is not read again. It is short compared with the time between the renewal of
/// a certificate and its end.
const TRUSTED_SECONDS: i64 = 6 * 3600;

impl TlsSecret<'_> {
    /// Returns a digest of everything that decides whether the Secret has to be written, except its content.
    fn digest(&self, authority: &Authority, now: Timestamp) -> u128 {
        let LeafRequest { dns, uri, server, client } = &self.request;
        let mut hasher = DefaultHasher::new();
        (dns, uri, server, client, &self.labels).hash(&mut hasher);
        (authority.certificate_pem(), now.as_second() / TRUSTED_SECONDS).hash(&mut hasher);
        hasher.finish().into()
    }
}

/// Creates the Secret, or renews its leaf certificate if needed. Sends no request if the Secret is known to be as wanted.
pub(crate) async fn ensure_tls(
    client: &Client,
    secrets: &Secrets,
    authority: &Authority,
    want: &TlsSecret<'_>,
    now: Timestamp,
) -> Result<(), SecretError> {
    let digest = want.digest(authority, now);
    let created = match secrets.knowledge(want.namespace, want.name, digest) {
        Knowledge::AsWanted(_) => return Ok(()),
        Knowledge::Missing => create(client, authority, want, now).await?,
        Knowledge::Unknown => None,
    };
    let metadata = match created {
        Some(created) => created,
        None => read_or_write(client, authority, want, now).await?,
    };
    secrets.verify(&metadata, digest, None);
    Ok(())
}

/// Creates the Secret. Returns its metadata; none if a Secret of that name exists.
async fn create(
    client: &Client,
    authority: &Authority,
    want: &TlsSecret<'_>,
    now: Timestamp,
) -> Result<Option<ObjectMeta>, SecretError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), want.namespace);
    match api.create(&post(), &render(want, authority, now, None)?).await {
        Ok(created) => Ok(Some(created.metadata)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(source) => Err(SecretError::Api { name: want.name.into(), source }),
    }
}

/// Reads the Secret, and creates or renews it if needed. Returns its metadata.
async fn read_or_write(
    client: &Client,
    authority: &Authority,
    want: &TlsSecret<'_>,
    now: Timestamp,
) -> Result<ObjectMeta, SecretError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), want.namespace);
    let failed = |source| SecretError::Api { name: want.name.into(), source };
    let found = api.get_opt(want.name).await.map_err(failed)?;
    let Some(found) = found else {
        let secret = render(want, authority, now, None)?;
        return Ok(api.create(&post(), &secret).await.map_err(failed)?.metadata);
    };
    if !mcp_fleet_core::labels::same_owner(found.metadata.labels.as_ref(), &want.labels) {
        return Err(SecretError::NotOurs { name: want.name.into() });
    }
    let Some(reason) = renewal_reason(&found, authority, want, now) else { return Ok(found.metadata) };
    tracing::debug!(name = want.name, ?reason, "renewing a certificate");
    let secret = render(want, authority, now, found.metadata.resource_version)?;
    Ok(api.replace(want.name, &post(), &secret).await.map_err(failed)?.metadata)
}

/// Returns why the certificate in a Secret must be renewed; none if it need not be.
fn renewal_reason(
    found: &Secret,
    authority: &Authority,
    want: &TlsSecret<'_>,
    now: Timestamp,
) -> Option<RenewalReason> {
    let value = |key: &str| found.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let (Some(certificate), Some(key), Some(ca)) = (value("tls.crt"), value("tls.key"), value("ca.crt")) else {
        return Some(RenewalReason::Unreadable);
    };
    if ca != authority.certificate_pem().as_bytes() {
        return Some(RenewalReason::Authority);
    }
    leaf_renewal_reason(certificate, key, authority, &want.request, now)
}

fn render(
    want: &TlsSecret<'_>,
    authority: &Authority,
    now: Timestamp,
    resource_version: Option<String>,
) -> Result<Secret, CaError> {
    let leaf = authority.issue(&want.request, now)?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(want.name.into()),
            namespace: Some(want.namespace.into()),
            labels: Some(want.labels.clone()),
            resource_version,
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data([
            ("tls.crt", leaf.certificate_pem.into_bytes()),
            ("tls.key", leaf.key_pem.into_bytes()),
            ("ca.crt", authority.certificate_pem().as_bytes().to_vec()),
        ])),
        ..Secret::default()
    })
}

/// Returns the parameters with which the operator creates and replaces objects.
pub(super) fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

fn data<const N: usize>(entries: [(&str, Vec<u8>); N]) -> BTreeMap<String, ByteString> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect()
}
