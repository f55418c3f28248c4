//! Stores a published policy as Secrets in the runtime namespace, written by compare-and-swap.
//!
//! Every Secret replaces the version that was read. The index is written last, and until then the chunks of the
//! previous index stay unchanged. So neither an old leader nor a leader that crashes leaves a torn snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_control::snapshot::{
    self, CHUNK_SLOTS, CompressedPolicy, INDEX_FILE, SnapshotError, SnapshotIndex, chunk_name, secret_name,
};
use mcp_fleet_control::{DecodeError, restrict};
use mcp_fleet_core::labels::Labels;
use mcp_fleet_core::policy::compile::Previous;

use super::later::LaterPolicy;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Secrets, Version};
use crate::kubernetes::timeout::with_timeout;

/// Component label of the Secrets.
pub(super) const COMPONENT: &str = "gateway-policy";
/// Name of the first Secret: it contains the index and chunk 0.
const FIRST_SECRET: &str = "gateway-policy";
/// Key of the scopes' UIDs in the first Secret. The policy itself only contains the names of scopes.
const SCOPES_FILE: &str = "scopes.json";
/// Beginning of the keys of chunks.
const CHUNK_PREFIX: &str = "chunk-";

/// Why a snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// The runtime namespace does not exist yet, or no longer.
    #[error("the runtime namespace does not exist yet")]
    NoNamespace,
    /// The operator has no access to the runtime namespace yet.
    #[error("the operator may not write Secrets in the runtime namespace yet")]
    Forbidden,
    /// Another writer changed the snapshot since it was read.
    #[error("failed to publish the policy: another replica of the operator published one")]
    Conflict,
    /// The API server refused or could not be reached.
    #[error("failed to {verb} the Secret {name}")]
    Api {
        /// The attempted operation.
        verb: &'static str,
        /// Name of the Secret.
        name: String,
        /// Error of the API server.
        source: Box<kube::Error>,
    },
    /// The published snapshot cannot be read. It is not replaced, because it contains the revocations in force.
    #[error(
        "failed to read the published policy, which is therefore not replaced; repair or delete the Secrets gateway-policy* in the runtime namespace"
    )]
    Unreadable(#[source] SnapshotError),
    /// The index of the published snapshot has the form of a later version.
    #[error(
        "a later version of the operator published the policy in a form that this version does not know; it stays in force, but is not confirmed any more. Update the operator, or delete the Secrets gateway-policy* in the runtime namespace"
    )]
    LaterIndex(#[source] SnapshotError),
    /// The records of the tenant that this one was restored from could not be taken over.
    #[error("failed to take over the ledgers and revocations of the tenant in the backup, so no policy is published")]
    Restore(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The policy is too large for a snapshot.
    #[error(transparent)]
    TooLarge(SnapshotError),
    /// A gateway would refuse the policy.
    #[error("failed to check that a gateway can enforce the policy")]
    Unenforceable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the Secrets of a snapshot hold.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A policy.
    Policy(Box<Previous>),
    /// A policy of a later version.
    Later(LaterPolicy),
}

/// The Secrets of one tenant's snapshot.
#[derive(Debug)]
pub(super) struct SnapshotSecrets {
    api: Api<Secret>,
    labels: Labels,
    /// `resourceVersion` of each Secret when it was last read or written, by name.
    versions: BTreeMap<String, String>,
    /// What the watch shows of the Secrets that were written here, by name.
    written: BTreeMap<String, Version>,
    /// Index of the published snapshot.
    published: Option<SnapshotIndex>,
}

impl SnapshotSecrets {
    /// Reads the versions of the Secrets, and the policy that was published in them.
    pub(super) async fn read(
        client: Client,
        namespace: &str,
        labels: Labels,
        tenant_uid: &str,
    ) -> Result<(Self, Result<Found, SnapshotError>), PublishError> {
        let api: Api<Secret> = Api::namespaced(client, namespace);
        // Before anything else is read, so that any later write of another leader causes a conflict.
        let mut versions = versions(&api).await?;
        let mut files = BTreeMap::new();
        let mut published = None;
        // Only the first Secret at first: most policies fit into it, and a new leader reads those of all tenants at
        // once.
        let mut numbers = vec![0];
        while let Some(number) = numbers.pop() {
            let name = secret_name(number);
            let found = with_timeout(api.get_opt(&name)).await.map_err(|source| failed("read", &name, source))?;
            if let Some(secret) = found {
                versions.insert(name, secret.resource_version().unwrap_or_default());
                files.extend(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)));
            }
            if number == 0 {
                published = snapshot::read_index(&files).ok();
                let chunks = published.iter().flat_map(|index| &index.chunks);
                numbers.extend(chunks.copied().filter(|number| *number > 0));
            }
        }
        let snapshots = Self { api, labels, versions, written: BTreeMap::new(), published };
        if !files.contains_key(INDEX_FILE) {
            return Ok((snapshots, Ok(Found::Nothing)));
        }
        let found = match snapshot::read_policy(&files) {
            Ok(decoded) => {
                // Without the UIDs, no scope inherits a previous grant, which is the safe side.
                let scopes = files.get(SCOPES_FILE).and_then(|text| serde_json::from_slice(text).ok());
                let policy = Arc::new(decoded.policy);
                Ok(Found::Policy(Box::new(Previous { policy, scopes: scopes.unwrap_or_default() })))
            }
            // The digest is right, so the policy is as it was written.
            Err(SnapshotError::Policy(DecodeError::Convert(_) | DecodeError::NotUnderstood)) => {
                snapshot::read_encoded(&files).map(|(index, encoded)| {
                    if restrict::tenant_uid(&encoded.bytes).is_ok_and(|uid| uid == tenant_uid) {
                        files.retain(|name, _| name != INDEX_FILE && !name.starts_with(CHUNK_PREFIX));
                        Found::Later(LaterPolicy { generation: index.generation, encoded, others: files })
                    } else {
                        Found::Nothing
                    }
                })
            }
            Err(error) => Err(error),
        };
        Ok((snapshots, found))
    }

    /// Returns whether the Secrets of the published snapshot still have the versions that were last read or written.
    pub(super) async fn is_unchanged(&self, secrets: &Secrets, namespace: &str) -> Result<bool, PublishError> {
        let more = self.published.iter().flat_map(|index| index.chunks.iter().copied().map(secret_name));
        let names: Vec<String> = [FIRST_SECRET.to_owned()].into_iter().chain(more).collect();
        // Usually the watch only shows what was written here.
        let is_seen = |name: &String| {
            let written = self.written.get(name);
            written.is_some_and(|written| secrets.has_version(namespace, name, *written))
        };
        if names.iter().all(is_seen) {
            return Ok(true);
        }
        let found = versions(&self.api).await?;
        Ok(names.iter().all(|name| found.get(name) == self.versions.get(name)))
    }

    /// Publishes a policy: the snapshot becomes the new policy, or stays as it was.
    pub(super) async fn write(
        &mut self,
        generation: u64,
        policy: &CompressedPolicy,
        scopes: &BTreeMap<String, String>,
    ) -> Result<(), PublishError> {
        let scopes = serde_json::to_vec(scopes).unwrap_or_default();
        self.write_files(generation, policy, BTreeMap::from([(SCOPES_FILE.to_owned(), scopes)])).await
    }

    /// Publishes a policy of a later version after it was restricted.
    pub(super) async fn write_later(&mut self, later: &LaterPolicy) -> Result<(), PublishError> {
        let compressed = CompressedPolicy::new(&later.encoded).map_err(PublishError::TooLarge)?;
        self.write_files(later.generation, &compressed, later.others.clone()).await
    }

    /// Publishes a policy, with `others` in the first Secret.
    async fn write_files(
        &mut self,
        generation: u64,
        policy: &CompressedPolicy,
        others: BTreeMap<String, Vec<u8>>,
    ) -> Result<(), PublishError> {
        let mut files =
            snapshot::write_compressed(generation, policy, self.published.as_ref()).map_err(PublishError::TooLarge)?;
        let index = snapshot::read_index(&files).map_err(PublishError::TooLarge)?;
        for number in 1..CHUNK_SLOTS {
            let name = secret_name(number);
            // A chunk that is no longer needed is left in place: the index does not refer to it.
            if let Some(chunk) = files.remove(&chunk_name(number)) {
                self.put(&name, BTreeMap::from([(chunk_name(number), chunk)])).await?;
            }
        }
        files.extend(others);
        self.put(FIRST_SECRET, files).await?;
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
            with_timeout(self.api.replace(name, &params, &secret))
                .await
                .map_err(|source| failed("replace", name, source))?
        } else {
            with_timeout(self.api.create(&params, &secret)).await.map_err(|source| failed("create", name, source))?
        };
        self.written.insert(name.to_owned(), Secrets::version(&written.metadata));
        self.versions.insert(name.to_owned(), written.resource_version().unwrap_or_default());
        Ok(())
    }
}

/// Returns the versions of all Secrets in a runtime namespace, by name. Does not select by label, because others may
/// remove the labels.
async fn versions(api: &Api<Secret>) -> Result<BTreeMap<String, String>, PublishError> {
    let found = with_timeout(api.list_metadata(&ListParams::default())).await;
    let found = found.map_err(|source| failed("list", FIRST_SECRET, source))?;
    Ok(found.into_iter().map(|secret| (secret.name_any(), secret.resource_version().unwrap_or_default())).collect())
}

fn failed(verb: &'static str, name: &str, source: kube::Error) -> PublishError {
    match &source {
        kube::Error::Api(status) if status.code == 409 => PublishError::Conflict,
        // A Secret to replace that was deleted is a conflict too: it must be read again. A missing namespace is not.
        kube::Error::Api(status) if status.code == 404 && verb == "replace" => PublishError::Conflict,
        kube::Error::Api(status) if status.code == 404 => PublishError::NoNamespace,
        kube::Error::Api(status) if status.code == 403 => PublishError::Forbidden,
        _ => PublishError::Api { verb, name: name.to_owned(), source: source.into() },
    }
}
