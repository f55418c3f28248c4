//! The copies in the runtime namespace, which pods refer to. All are Secrets, also those of `ConfigMap`s.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::server_config::{Found, Keys, PULL_SECRET_TYPE, References, Source};
use mcp_fleet_crds::MCPServer;

use super::read::turn;
use crate::context::Context;
use crate::controllers::apply::delete_undeclared;
use crate::controllers::error::ReconcileError;
use crate::controllers::secret_copy::SecretCopy;
use crate::controllers::server::validate::Server;

/// Component of a copy.
const COMPONENT: &str = "server-config";
/// Annotation of a copy: the key, in hexadecimal digits, of the digest of its contents that pods are annotated with. Whoever may
/// read pods but not Secrets cannot find out with it whether a guess of a value is right.
const DIGEST_KEY: &str = "mcp-fleet.dev/digest-key";
/// Most bytes of a copy that also has what only earlier pods need. The API server takes 1 MiB.
const MAX_BYTES: usize = 1_000_000;

/// What was copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copied {
    /// Text that is another one for other contents. None if nothing is copied that the program sees.
    pub version: Option<String>,
    /// Sources whose copies have more than the server needs.
    surplus: Vec<Source>,
}

/// Writes the copies of a server. What an earlier copy has besides stays if only earlier pods use it, which may have to start again.
pub(crate) async fn apply(
    ctx: &Context,
    server: &Server,
    (references, found): (&References, &Found),
) -> Result<Copied, ReconcileError> {
    let _turn = if found.0.is_empty() { None } else { turn().await };
    let mut copied = Copied::default();
    let mut digests = Vec::with_capacity(found.0.len());
    for (source, data) in &found.0 {
        let name = source.copy_name(&server.id.name);
        let mut copy = new_copy(server, (source, &name), data.clone());
        let live = copy.read(ctx).await?;
        let key = live.as_ref().and_then(key_of).map_or_else(new_key, Ok)?;
        copy.annotations.insert(DIGEST_KEY.into(), key.to_hex().to_string());
        // A variable that the source has no longer is none of new pods, which would keep it. Files that go later go from them, too.
        let is_variable = |key: &String| references.0.get(source).is_some_and(|keys: &Keys| keys.is_variable(key));
        let before = live.as_ref().and_then(|live| live.data.as_ref()).into_iter().flatten();
        for (key, value) in before.filter(|(key, _)| !is_variable(key)) {
            copy.data.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if size(&copy.data) > MAX_BYTES {
            copy.data.clone_from(data);
        } else if copy.data.len() > data.len() {
            copied.surplus.push(source.clone());
        }
        copy.apply_over(ctx, live).await?;
        // Only later pulls use it, so pods go on.
        if !matches!(source, Source::PullSecret(_)) {
            digests.push(digest(key, data));
        }
    }
    copied.version = (!digests.is_empty()).then(|| digests.join("-"));
    Ok(copied)
}

/// Removes what a server does not need any more: from copies, and whole copies. To be called once no pod needs it either.
pub(crate) async fn prune(
    ctx: &Context,
    object: &MCPServer,
    server: &Server,
    (found, copied): (&Found, &Copied),
) -> Result<(), ReconcileError> {
    for (source, data) in found.0.iter().filter(|(source, _)| copied.surplus.contains(source)) {
        let _turn = turn().await;
        let name = source.copy_name(&server.id.name);
        let mut copy = new_copy(server, (source, &name), data.clone());
        let live = copy.read(ctx).await?;
        copy.annotations = live.as_ref().and_then(|live| live.metadata.annotations.clone()).unwrap_or_default();
        copy.apply_over(ctx, live).await?;
    }
    let needed: Vec<_> = found.0.keys().map(|source| source.copy_name(&server.id.name)).collect();
    let mut unneeded = ctx.cache.secrets.with_label(&server.runtime_namespace, labels::SERVER_UID, &server.id.uid);
    unneeded.retain(|(key, meta)| meta.labels.get(labels::COMPONENT) == Some(COMPONENT) && !needed.contains(&key.name));
    delete_undeclared(ctx, object, unneeded).await
}

fn new_copy<'c>(
    server: &'c Server,
    (source, name): (&Source, &'c str),
    data: BTreeMap<String, ByteString>,
) -> SecretCopy<'c> {
    let namespace = &server.runtime_namespace;
    let kind = match source {
        Source::PullSecret(_) => PULL_SECRET_TYPE,
        Source::Secret(_) | Source::ConfigMap(_) => "Opaque",
    };
    SecretCopy { namespace, name, labels: labels(server), annotations: Labels::new(), kind, data }
}

fn labels(server: &Server) -> Labels {
    let mut labels = server.labels();
    labels.insert(labels::COMPONENT.into(), COMPONENT.into());
    labels
}

fn key_of(copy: &Secret) -> Option<blake3::Hash> {
    blake3::Hash::from_hex(copy.metadata.annotations.as_ref()?.get(DIGEST_KEY)?).ok()
}

fn new_key() -> Result<blake3::Hash, ReconcileError> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| ReconcileError::Incomplete("random numbers"))?;
    Ok(blake3::Hash::from_bytes(bytes))
}

/// Returns a keyed digest of contents.
fn digest(key: blake3::Hash, data: &BTreeMap<String, ByteString>) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    for (name, value) in data {
        for part in [name.as_bytes(), &value.0] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}

fn size(data: &BTreeMap<String, ByteString>) -> usize {
    data.iter().map(|(key, value)| key.len() + value.0.len()).sum()
}
