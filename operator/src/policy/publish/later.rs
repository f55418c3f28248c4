//! A snapshot that a later version of the operator published, and that this version cannot decode.
//!
//! It stays in force: to compile another policy would drop restrictions that this version does not know. What stops calls
//! still applies, because that can be set without decoding the rest; see [`mcp_fleet_control::restrict`]. Everything else
//! waits for the later version. No leases are granted, because the limits of budgets are among what is not understood.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_control::EncodedPolicy;
use mcp_fleet_control::restrict::{Restriction, restrict};
use mcp_fleet_control::snapshot::CompressedPolicy;
use mcp_fleet_core::credentials::revocation;
use mcp_fleet_core::policy::compile::TenantInputs;
use mcp_fleet_core::shared_state::verdict::{Kind, PolicyEntry, Verdict};
use mcp_fleet_core::shared_state::{PolicyEntries, Published};
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::BuiltInTools;
use mcp_fleet_policy::model::{StaleAfter, TenantLimits, TenantPolicy, Uid};

use super::entries::enforced;
use super::snapshot::PublishError;
use super::worker::Worker;

/// What conditions say while a later version's policy is in force.
pub(super) const MESSAGE: &str = "a later version of the operator compiled the policy in force, which this version cannot \
     read: suspension, revocation and deletion of principals and tenants apply, other changes wait for the later version. \
     To go back to this version, delete the Secrets gateway-policy* in the runtime namespace";

/// A policy that this version cannot decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaterPolicy {
    pub(super) generation: u64,
    pub(super) encoded: EncodedPolicy,
    /// What else is in the first Secret, which a write keeps.
    pub(super) others: BTreeMap<String, Vec<u8>>,
}

impl LaterPolicy {
    /// Returns the policy with what stops calls according to the inputs; none if it contains that already.
    pub(super) fn restricted(&self, inputs: &TenantInputs, floor: u64) -> Result<Option<Self>, PublishError> {
        let generation = self.generation.max(floor).saturating_add(1);
        let stops = restrictions(inputs);
        let of_principal = |uid: &str| {
            // A principal that is gone is refused.
            stops.get(uid).copied().unwrap_or(Restriction { suspended: true, revoked_until: None })
        };
        let encoded = restrict(&self.encoded.bytes, generation, is_suspended(inputs), of_principal);
        let encoded = encoded.map_err(|error| PublishError::Unenforceable(error.into()))?;
        Ok(encoded.map(|encoded| Self { generation, encoded, others: self.others.clone() }))
    }
}

impl Worker {
    /// Keeps the policy of a later version in force, and restricts it if the objects ask for that.
    pub(super) async fn keep_later(&mut self, inputs: &TenantInputs, floor: u64) -> Result<(), PublishError> {
        let Some(mut later) = self.later.clone() else { return Ok(()) };
        if let Some(restricted) = later.restricted(inputs, floor)? {
            let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
            if let Err(error) = snapshots.write_later(&restricted).await {
                self.forget_snapshot(&error);
                return Err(error);
            }
            tracing::info!(
                tenant = inputs.tenant.name_any(),
                generation = restricted.generation,
                "restricted the policy of a later version"
            );
            later = restricted;
        }
        let enforced = &*self.enforced_by_later.get_or_insert_with(|| enforced_as_written(inputs));
        let shared = &self.ctx.shared_state;
        let generation = later.generation;
        if shared.policies.published(&self.uid).map(|published| published.policy.generation) != Some(generation) {
            let size = CompressedPolicy::new(&later.encoded).map_err(PublishError::TooLarge)?.size();
            let published = Published::undecoded(outline(inputs, generation), later.encoded.clone(), size);
            shared.policies.publish(&self.uid, published);
        }
        shared.set_published(
            &self.uid,
            generation,
            later.encoded.digest.to_string(),
            Arc::new(entries(inputs, generation, enforced)),
        );
        self.later = Some(later);
        Ok(())
    }
}

fn is_suspended(inputs: &TenantInputs) -> bool {
    let unreadable = inputs.unreadable.tenant.as_ref();
    inputs.tenant.spec.suspend
        || inputs.tenant.metadata.deletion_timestamp.is_some()
        || unreadable.is_some_and(|tenant| tenant.with_field("suspend").is_none())
}

/// Returns what stops the calls of each principal that exists, by UID.
fn restrictions(inputs: &TenantInputs) -> BTreeMap<Uid, Restriction> {
    let now = Timestamp::from_second(inputs.now).unwrap_or_default();
    let revoked_until = |uid: &str, principal: Option<&MCPPrincipal>| {
        let requested = principal.and_then(|principal| principal.spec.revoke_issued_before.as_ref());
        let requested = revocation::requested(requested.map(|time| time.0), now);
        inputs.revocations.get(uid).copied().max(requested)
    };
    let readable = inputs.principals.iter().filter(|principal| principal.metadata.deletion_timestamp.is_none());
    let readable = readable.map(|principal| {
        let uid = principal.uid().unwrap_or_default();
        let revoked_until = revoked_until(&uid, Some(principal));
        (uid, Restriction { suspended: principal.spec.suspend, revoked_until })
    });
    let unreadable =
        inputs.unreadable.principals.iter().filter(|principal| principal.metadata.deletion_timestamp.is_none());
    let unreadable = unreadable.map(|principal| {
        let uid = principal.uid().unwrap_or_default();
        let revocable = principal.with_field("revokeIssuedBefore");
        let suspended = principal.with_field("suspend").is_none_or(|partial| partial.spec.suspend);
        let revoked_until = revoked_until(&uid, revocable.map(|partial| &**partial));
        (uid, Restriction { suspended: suspended || revocable.is_none(), revoked_until })
    });
    readable.chain(unreadable).collect()
}

/// Returns what this version knows of the policy. It has no budgets, so no leases are granted.
fn outline(inputs: &TenantInputs, generation: u64) -> TenantPolicy {
    let spec = &inputs.tenant.spec;
    TenantPolicy {
        tenant: inputs.tenant.name_any(),
        tenant_uid: inputs.tenant.uid().unwrap_or_default(),
        generation,
        suspended: spec.suspend,
        audience: inputs.audience.clone(),
        other_audiences: inputs.other_audiences.clone(),
        issuer: inputs.issuer.clone(),
        keys: inputs.keys.clone(),
        session_key: inputs.session_key.clone(),
        traffic: TenantLimits {
            calls_per_minute: spec.traffic.calls_per_minute,
            max_concurrent_calls: spec.traffic.max_concurrent_calls,
        },
        built_in_tools: spec.built_in_tools == BuiltInTools::Enabled,
        allowed_origins: spec.endpoint.allowed_origins.clone(),
        stale_after: StaleAfter {
            read: spec.policy.stale_after.read.get(),
            write: spec.policy.stale_after.write.get(),
        },
        currency: None,
        servers: Vec::new(),
        principals: Vec::new(),
        budgets: Vec::new(),
    }
}

/// Returns the objects that gateways enforce as they are written, according to their statuses: kind, UID and generation.
fn enforced_as_written(inputs: &TenantInputs) -> BTreeSet<(Kind, Uid, i64)> {
    let enforced = enforced(inputs);
    objects(inputs).into_iter().filter(|(kind, uid, _)| enforced.contains(&(*kind, uid.clone()))).collect()
}

/// Returns what is known of the objects: those that were enforced as they are written still are.
fn entries(inputs: &TenantInputs, generation: u64, enforced: &BTreeSet<(Kind, Uid, i64)>) -> PolicyEntries {
    let entry = |object: (Kind, Uid, i64)| {
        let ok = enforced.contains(&object);
        let (kind, uid, object_generation) = object;
        let (reason, message, since) = if ok {
            (ConditionReason::Resolved, "all referenced objects exist", 0)
        } else {
            (ConditionReason::LaterPolicy, MESSAGE, generation)
        };
        let verdict = Verdict { ok, reason, message: message.into(), object_generation };
        ((kind, uid), PolicyEntry { verdict, since, has_address: ok })
    };
    objects(inputs).into_iter().map(entry).collect()
}

/// Returns kind, UID and generation of all objects.
fn objects(inputs: &TenantInputs) -> Vec<(Kind, Uid, i64)> {
    fn of<K: ResourceExt>(kind: Kind, objects: &[Arc<K>]) -> impl Iterator<Item = (Kind, Uid, i64)> {
        objects
            .iter()
            .map(move |object| (kind, object.uid().unwrap_or_default(), object.meta().generation.unwrap_or(0)))
    }
    of(Kind::Tenant, std::slice::from_ref(&inputs.tenant))
        .chain(of(Kind::Server, &inputs.servers))
        .chain(of(Kind::Scope, &inputs.scopes))
        .chain(of(Kind::Principal, &inputs.principals))
        .chain(of(Kind::Budget, &inputs.budgets))
        .collect()
}
