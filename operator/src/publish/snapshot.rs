//! The published policy as Secrets of the runtime namespace, written by compare-and-swap.
//!
//! Every Secret is written over the version that was read; the index comes last, and what the index before it names is
//! not touched until then. So neither a leader that is no longer one nor a leader that dies tears a snapshot apart.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_control::EncodedPolicy;
use mcp_fleet_control::snapshot::{
    self, CHUNK_SLOTS, INDEX_FILE, SnapshotError, SnapshotIndex, chunk_name, secret_name,
};

use crate::compile::Previous;
use crate::config::FIELD_MANAGER;
use crate::deadline::within;
use crate::labels::Labels;

/// The label of the component that the Secrets carry.
pub(super) const COMPONENT: &str = "gateway-policy";
/// The name of the first Secret: the index and chunk 0.
const SECRET: &str = "gateway-policy";
/// The UIDs of the scopes, beside the index: the policy itself names scopes only.
const SCOPES: &str = "scopes.json";

/// Why a snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The namespace is not there (any more).
    #[error("the runtime namespace is not there yet")]
    NoNamespace,
    /// The namespace is not open to the operator (yet).
    #[error("the operator may not write Secrets in the runtime namespace yet")]
    NotLetIn,
    /// Another leader has written in between.
    #[error("failed to publish the policy: another replica of the operator published one")]
    Conflict,
    /// The API server refused or could not be reached.
    #[error("failed to {verb} the Secret {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Which Secret.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// What is there cannot be read. Nothing is published over it: what was revoked stands in it.
    #[error(
        "failed to read the published policy; nothing is published over it. Repair or delete the Secrets gateway-policy* of the runtime namespace"
    )]
    Unreadable(#[source] SnapshotError),
    /// The policy is too large.
    #[error(transparent)]
    TooLarge(SnapshotError),
    /// The gateway could not enforce the policy.
    #[error("failed to check the policy as a gateway does")]
    Unenforceable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The Secrets of one tenant's snapshot.
#[derive(Debug)]
pub(super) struct Snapshots {
    api: Api<Secret>,
    labels: Labels,
    /// Versions as they were read or written last, by name.
    versions: BTreeMap<String, String>,
    /// The index that stands there.
    published: Option<SnapshotIndex>,
}

impl Snapshots {
    /// Reads what is there: the versions, and what was in force by it.
    pub(super) async fn read(
        client: Client,
        namespace: &str,
        labels: Labels,
    ) -> Result<(Self, Result<Option<Previous>, SnapshotError>), PublishError> {
        let api: Api<Secret> = Api::namespaced(client, namespace);
        // Before anything is read: what is written by another leader from here on is a conflict.
        let mut versions = versions(&api).await?;
        let mut files = BTreeMap::new();
        let mut published = None;
        // Most policies fit into the first; a new leader reads those of all tenants at once.
        let mut wanted = vec![0];
        while let Some(number) = wanted.pop() {
            let name = secret_name(number);
            let found = within(api.get_opt(&name)).await.map_err(|source| failed("read", &name, source))?;
            if let Some(secret) = found {
                versions.insert(name, secret.resource_version().unwrap_or_default());
                files.extend(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)));
            }
            if number == 0 {
                published = snapshot::read_index(&files).ok();
                let chunks = published.iter().flat_map(|index| &index.chunks);
                wanted.extend(chunks.copied().filter(|number| *number > 0));
            }
        }
        let snapshots = Self { api, labels, versions, published };
        if !files.contains_key(INDEX_FILE) {
            return Ok((snapshots, Ok(None)));
        }
        let previous = snapshot::read_policy(&files).map(|(_, policy)| {
            // Without the UIDs no scope inherits anything: the careful side.
            let scopes = files.get(SCOPES).and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
            Some(Previous { policy, scopes })
        });
        Ok((snapshots, previous))
    }

    /// Whether the Secrets of what is published are still as they were read or written last.
    pub(super) async fn untouched(&self) -> Result<bool, PublishError> {
        let found = versions(&self.api).await?;
        let more = self.published.iter().flat_map(|index| index.chunks.iter().copied().map(secret_name));
        Ok([SECRET.to_owned()].into_iter().chain(more).all(|name| found.get(&name) == self.versions.get(&name)))
    }

    /// Publishes a policy; what is published is what was given, or nothing.
    pub(super) async fn write(
        &mut self,
        generation: u64,
        encoded: &EncodedPolicy,
        scopes: &BTreeMap<String, String>,
    ) -> Result<(), PublishError> {
        let mut files =
            snapshot::write_files(generation, encoded, self.published.as_ref()).map_err(PublishError::TooLarge)?;
        let index = snapshot::read_index(&files).map_err(PublishError::TooLarge)?;
        for number in 1..CHUNK_SLOTS {
            let name = secret_name(number);
            // A chunk that is no longer needed stays as it is: the index does not name it.
            if let Some(chunk) = files.remove(&chunk_name(number)) {
                self.put(&name, BTreeMap::from([(chunk_name(number), chunk)])).await?;
            }
        }
        files.insert(SCOPES.to_owned(), serde_json::to_vec(scopes).unwrap_or_default());
        self.put(SECRET, files).await?;
        self.published = Some(index);
        Ok(())
    }

    async fn put(&mut self, name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<(), PublishError> {
        let version = self.versions.get(name).cloned();
        let exists = version.is_some();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(self.labels.clone()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: Some(files.into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
            type_: Some("Opaque".into()),
            ..Secret::default()
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = if exists {
            within(self.api.replace(name, &params, &secret)).await.map_err(|source| failed("replace", name, source))?
        } else {
            within(self.api.create(&params, &secret)).await.map_err(|source| failed("create", name, source))?
        };
        self.versions.insert(name.to_owned(), written.resource_version().unwrap_or_default());
        Ok(())
    }
}

/// The versions of all Secrets in a runtime namespace, by name: with or without our labels, which others may take off.
async fn versions(api: &Api<Secret>) -> Result<BTreeMap<String, String>, PublishError> {
    let found = within(api.list_metadata(&ListParams::default())).await;
    let found = found.map_err(|source| failed("list", SECRET, source))?;
    Ok(found.into_iter().map(|secret| (secret.name_any(), secret.resource_version().unwrap_or_default())).collect())
}

fn failed(verb: &'static str, name: &str, source: kube::Error) -> PublishError {
    match &source {
        kube::Error::Api(status) if status.code == 409 => PublishError::Conflict,
        // Replacing what somebody deleted is a conflict too: read again. Creating into nowhere: wait.
        kube::Error::Api(status) if status.code == 404 && verb == "replace" => PublishError::Conflict,
        kube::Error::Api(status) if status.code == 404 => PublishError::NoNamespace,
        kube::Error::Api(status) if status.code == 403 => PublishError::NotLetIn,
        _ => PublishError::Api { verb, name: name.to_owned(), source: source.into() },
    }
}
