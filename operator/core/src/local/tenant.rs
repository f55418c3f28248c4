//! What is kept of a tenant in its folder: its keys, the policy in force, and revocations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use mcp_fleet_control::snapshot;
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_policy::model::{Uid, VerificationKey};

use super::{LocalError, Objects, Verdict};
use crate::credentials::revocation::requested;
use crate::credentials::tokens::TenantKeys;
use crate::policy::compile::{Compiled, Previous, TenantInputs, UnreadableInputs};
use crate::policy::fit::{check_enforceable, fitting};
use crate::private_files;
use crate::shared_state::verdict::Kind;
use crate::shared_state::{Published, SharedState};

/// Link to the folder with the policy in force, which gateways read when they start.
const POLICY: &str = "policy";
/// UIDs of the scopes in that policy, by name.
const SCOPES: &str = "scopes.json";
const REVOCATIONS: &str = "revocations.json";

/// A tenant of this fleet.
#[derive(Debug)]
pub(super) struct Tenant {
    folder: PathBuf,
    pub(super) keys: TenantKeys,
    previous: Option<Previous>,
    /// Highest revocation that was ever in force, by UID of the principal, in Unix seconds.
    pub(super) revocations: BTreeMap<Uid, i64>,
}

impl Tenant {
    /// Reads what is kept of a tenant. Makes its keys if it is new.
    pub(super) fn open(folder: &Path) -> Result<Self, LocalError> {
        let failed = |source| LocalError::Folder { path: folder.to_owned(), source };
        private_files::create_folder(folder).map_err(failed)?;
        let [key, session] = ["key.der", "session"].map(|name| folder.join(name));
        let stored = (private_files::read(&key).map_err(failed)?, private_files::read(&session).map_err(failed)?);
        let keys = if let (Some(key), Some(session)) = &stored {
            TenantKeys::from_parts(key, session)?
        } else {
            let keys = TenantKeys::generate()?;
            private_files::replace(&session, &keys.session).map_err(failed)?;
            private_files::replace(&key, &keys.pkcs8).map_err(failed)?;
            keys
        };
        let revocations = private_files::read(&folder.join(REVOCATIONS)).map_err(failed)?;
        let revocations = revocations.map(|text| serde_json::from_slice(&text)).transpose();
        Ok(Self {
            previous: read_policy(&folder.join(POLICY))?,
            revocations: revocations
                .map_err(|error| LocalError::Damaged(folder.join(REVOCATIONS), error.into()))?
                .unwrap_or_default(),
            folder: folder.to_owned(),
            keys,
        })
    }

    /// Returns the folder that the gateway reads the policy from.
    pub(super) fn policy_folder(&self) -> PathBuf {
        self.folder.join(POLICY)
    }

    /// Compiles the objects, and publishes the policy if it differs from the one in force.
    pub(super) fn publish(
        &mut self,
        shared: &SharedState,
        objects: &Objects,
        issuer: String,
    ) -> Result<super::Published, LocalError> {
        let now = Timestamp::now();
        self.raise_revocations(&objects.principals, now)?;
        let inputs = TenantInputs {
            tenant: objects.tenant.clone(),
            servers: objects.servers.clone(),
            scopes: objects.scopes.clone(),
            principals: objects.principals.clone(),
            budgets: objects.budgets.clone(),
            unreadable: UnreadableInputs::default(),
            addresses: objects.addresses.clone(),
            keys: vec![VerificationKey { kid: self.keys.kid.clone(), point: self.keys.point.clone() }],
            session_key: self.keys.session.to_vec(),
            audience: objects.url.clone(),
            // Clients are on this machine.
            other_audiences: vec![],
            issuer,
            revocations: self.revocations.clone(),
            now: now.as_second(),
        };
        let uid = objects.tenant.uid().unwrap_or_default();
        let compiled = fitting(&inputs, self.previous.as_ref());
        let generation = self.put_in_force(shared, &uid, &compiled)?;
        Ok(super::Published { generation, verdicts: verdicts(objects, &compiled) })
    }

    /// Writes a policy and hands it to the control streams, unless it is the one in force. Returns the generation in force.
    fn put_in_force(&mut self, shared: &SharedState, uid: &str, compiled: &Compiled) -> Result<u64, LocalError> {
        let Compiled { policy, scopes, .. } = compiled;
        let mut policy = policy.clone();
        let floor = shared.policies.floor(uid);
        let before = self.previous.as_ref().filter(|previous| *previous.policy == policy && floor <= policy.generation);
        let is_new = before.is_none();
        if is_new {
            policy.generation = policy.generation.max(floor).saturating_add(1);
        }
        let generation = policy.generation;
        if !is_new && shared.policies.published(uid).is_some_and(|published| published.policy.generation == generation)
        {
            return Ok(generation);
        }
        let encoded = mcp_fleet_control::encode(&policy);
        check_enforceable(&encoded).map_err(LocalError::Publish)?;
        let files =
            snapshot::write_files(generation, &encoded, None).map_err(|error| LocalError::Publish(error.into()))?;
        let size = files.values().map(Vec::len).sum();
        if is_new {
            let failed = |source| LocalError::Folder { path: self.folder.clone(), source };
            write_policy(&self.folder, generation, &files, scopes).map_err(failed)?;
        }
        let (policy, digest) = (Arc::new(policy), encoded.digest.to_string());
        shared.policies.publish(uid, Published::new(Arc::clone(&policy), encoded, size));
        shared.set_published(uid, generation, digest, Arc::default());
        self.previous = Some(Previous { policy, scopes: scopes.clone() });
        Ok(generation)
    }

    /// Records revocations that have become due, before they are in force, and never lowers one.
    fn raise_revocations(&mut self, principals: &[Arc<MCPPrincipal>], now: Timestamp) -> Result<(), LocalError> {
        let mut raised = self.revocations.clone();
        for principal in principals {
            let wanted = principal.spec.revoke_issued_before.as_ref().map(|time| time.0);
            if let (Some(until), Some(uid)) = (requested(wanted, now), principal.uid()) {
                let known = raised.entry(uid).or_insert(until);
                *known = until.max(*known);
            }
        }
        if raised != self.revocations {
            let path = self.folder.join(REVOCATIONS);
            let text = serde_json::to_vec(&raised).map_err(|error| LocalError::Damaged(path.clone(), error.into()))?;
            private_files::replace(&path, &text).map_err(|source| LocalError::Folder { path, source })?;
            self.revocations = raised;
        }
        Ok(())
    }
}

/// Reads the policy in force; none if there is none yet.
fn read_policy(folder: &Path) -> Result<Option<Previous>, LocalError> {
    let damaged = |error: Box<dyn std::error::Error + Send + Sync>| LocalError::Damaged(folder.to_owned(), error);
    let mut found = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(damaged(error.into())),
    };
    for entry in entries {
        let path = entry.map_err(|error| damaged(error.into()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.insert(name, std::fs::read(&path).map_err(|error| damaged(error.into()))?);
    }
    let policy = snapshot::read_policy(&found).map_err(|error| damaged(error.into()))?.policy;
    let scopes = found.get(SCOPES).map(|text| serde_json::from_slice(text)).transpose();
    let scopes = scopes.map_err(|error| damaged(error.into()))?.unwrap_or_default();
    Ok(Some(Previous { policy: Arc::new(policy), scopes }))
}

/// Writes a policy into a folder of its own, and then lets the link point there.
fn write_policy(
    folder: &Path,
    generation: u64,
    contents: &BTreeMap<String, Vec<u8>>,
    scopes: &BTreeMap<String, Uid>,
) -> std::io::Result<()> {
    let name = format!("{POLICY}-{generation}");
    let target = folder.join(&name);
    private_files::create_folder(&target)?;
    private_files::replace(&target.join(SCOPES), &serde_json::to_vec(scopes)?)?;
    for (name, bytes) in contents {
        private_files::replace(&target.join(name), bytes)?;
    }
    let (link, new) = (folder.join(POLICY), folder.join(format!("{POLICY}.new")));
    let before = std::fs::read_link(&link).ok();
    if std::fs::symlink_metadata(&new).is_ok() {
        std::fs::remove_file(&new)?;
    }
    std::os::unix::fs::symlink(&name, &new)?;
    std::fs::rename(&new, &link)?;
    // A gateway that is reading the earlier one reads the newer one within seconds.
    if let Some(before) = before.filter(|before| *before != Path::new(&name)) {
        std::fs::remove_dir_all(folder.join(before))?;
    }
    Ok(())
}

/// Returns the verdicts with the names of their objects.
fn verdicts(objects: &Objects, compiled: &Compiled) -> Vec<Verdict> {
    let mut found = Vec::new();
    let mut add = |kind, name: &'static str, object: String, uid: Option<String>| {
        let Some(verdict) = uid.and_then(|uid| compiled.verdicts.get(&(kind, uid))) else { return };
        found.push(Verdict {
            kind: name,
            object,
            is_in_force: verdict.ok,
            reason: verdict.reason.as_str().to_owned(),
            message: verdict.message.clone(),
        });
    };
    add(Kind::Tenant, "MCPTenant", objects.tenant.name_any(), objects.tenant.uid());
    for it in &objects.servers {
        add(Kind::Server, "MCPServer", it.name_any(), it.uid());
    }
    for it in &objects.scopes {
        add(Kind::Scope, "MCPScope", it.name_any(), it.uid());
    }
    for it in &objects.principals {
        add(Kind::Principal, "MCPPrincipal", it.name_any(), it.uid());
    }
    for it in &objects.budgets {
        add(Kind::Budget, "MCPBudget", it.name_any(), it.uid());
    }
    found
}
