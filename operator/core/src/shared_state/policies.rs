//! The newest published policy of each tenant and the proof that it is current. The publisher writes them, the control
//! streams push them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mcp_fleet_control::codec::expanded;
use mcp_fleet_control::{EncodedPolicy, Form};
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Homes, Term};
use crate::ledger::{AnyStore, Ledger};

/// A policy that is published in its snapshot.
#[derive(Clone, Debug)]
pub struct Published {
    pub policy: Arc<TenantPolicy>,
    /// The policy in the shared form.
    pub encoded: Arc<EncodedPolicy>,
    /// Size of the shared form when it is compressed, in bytes.
    pub compressed_size: usize,
    /// The policy in the expanded form, once an older gateway has connected; none if it is too large for one message.
    expanded: Arc<OnceLock<Option<Arc<EncodedPolicy>>>>,
}

impl Published {
    /// Returns a published policy. `encoded` is its shared form.
    pub fn new(policy: Arc<TenantPolicy>, encoded: EncodedPolicy, compressed_size: usize) -> Self {
        Self { policy, encoded: Arc::new(encoded), compressed_size, expanded: Arc::default() }
    }

    /// Returns a published policy that this version cannot decode, of which `policy` is only an outline. Every gateway gets it
    /// as it is.
    pub fn undecoded(policy: TenantPolicy, encoded: EncodedPolicy, compressed_size: usize) -> Self {
        let published = Self::new(Arc::new(policy), encoded, compressed_size);
        Self { expanded: Arc::new(Some(Arc::clone(&published.encoded)).into()), ..published }
    }

    /// Returns the policy in this form; none if it is too large for a gateway that needs it expanded.
    pub fn in_form(&self, form: Form) -> Option<Arc<EncodedPolicy>> {
        match form {
            Form::Shared => Some(Arc::clone(&self.encoded)),
            Form::Expanded => self.expanded.get_or_init(|| expanded(&self.policy).map(Arc::new)).clone(),
        }
    }
}

/// Proof that a generation is current: at time `read`, the objects compiled to no newer policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub generation: u64,
    /// When the consistent read of the objects began.
    pub read: Instant,
}

/// Policy and proof of one tenant.
#[derive(Clone, Debug, Default)]
pub struct PolicyState {
    /// Newest policy; none before the first is published.
    pub published: Option<Published>,
    /// Newest proof; none before the first.
    pub proof: Option<Proof>,
}

/// State that only a leader has.
#[derive(Clone, Debug)]
pub struct LeaderState {
    pub ledger: Arc<Ledger<AnyStore>>,
    /// Which gateways are the homes of which principals.
    pub homes: Arc<Homes>,
    /// Cancelled when this replica no longer leads.
    pub ended: CancellationToken,
}

/// The policies and proofs of all tenants, by UID, while this replica leads.
#[derive(Debug, Default)]
pub struct Policies {
    tenants: RwLock<HashMap<String, watch::Sender<PolicyState>>>,
    floors: RwLock<HashMap<String, u64>>,
    leader: RwLock<Option<LeaderState>>,
}

/// Maximum generation. JSON readers could round larger numbers, so no operator publishes them.
const MAX_GENERATION: u64 = 1 << 53;

impl Policies {
    /// Returns the leader's state; none if another replica leads, or the ledger has not been read yet.
    pub fn leader_state(&self) -> Option<LeaderState> {
        self.leader.read().clone()
    }

    /// Starts to lead. When the returned guard is dropped, all policies are removed and all streams end.
    pub fn start_leading(&self, ledger: Arc<Ledger<AnyStore>>, term: Term) -> impl Drop + use<'_> {
        struct Guard<'a>(&'a Policies, CancellationToken);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                *self.0.leader.write() = None;
                // Before the tenants are removed, because streams distinguish a lost leadership from a deleted tenant.
                self.1.cancel();
                self.0.tenants.write().clear();
                self.0.floors.write().clear();
            }
        }
        let ended = CancellationToken::new();
        *self.leader.write() = Some(LeaderState { ledger, homes: Arc::new(Homes::new(term)), ended: ended.clone() });
        Guard(self, ended)
    }

    /// Subscribes to the policy and proof of a tenant.
    pub fn subscribe(&self, tenant_uid: &str) -> watch::Receiver<PolicyState> {
        let mut tenants = self.tenants.write();
        tenants.entry(tenant_uid.to_owned()).or_insert_with(|| watch::channel(PolicyState::default()).0).subscribe()
    }

    /// Returns the newest policy of a tenant.
    pub fn published(&self, tenant_uid: &str) -> Option<Published> {
        self.tenants.read().get(tenant_uid)?.borrow().published.clone()
    }

    /// Returns the newest policies of all tenants.
    pub fn all(&self) -> Vec<Published> {
        self.tenants.read().values().filter_map(|tenant| tenant.borrow().published.clone()).collect()
    }

    /// Returns the age of the newest proof of each tenant that has one, by its name.
    pub fn proof_ages(&self) -> Vec<(String, Duration)> {
        let age = |state: &PolicyState| {
            let tenant = state.published.as_ref()?.policy.tenant.as_str().to_owned();
            Some((tenant, state.proof?.read.elapsed()))
        };
        self.tenants.read().values().filter_map(|tenant| age(&tenant.borrow())).collect()
    }

    /// Sets the newest policy of a tenant. The last proof also applies to it, because it was compiled from objects that
    /// are at least as new as that proof.
    pub fn publish(&self, tenant_uid: &str, published: Published) {
        let generation = published.policy.generation;
        self.update(tenant_uid, |policy_state| {
            let proof = policy_state.proof.map(|proof| Proof { generation, ..proof });
            *policy_state = PolicyState { published: Some(published), proof };
        });
    }

    /// Sets the newest proof of a tenant.
    pub fn prove(&self, tenant_uid: &str, proof: Proof) {
        self.update(tenant_uid, |policy_state| policy_state.proof = Some(proof));
    }

    /// Forgets the homes of a tenant that was deleted. Its UID never comes back.
    pub fn remove_homes(&self, tenant_uid: &str) {
        if let Some(leader) = self.leader_state() {
            leader.homes.remove(tenant_uid);
        }
    }

    /// Removes a tenant, which ends its streams.
    pub fn remove(&self, tenant_uid: &str) {
        self.tenants.write().remove(tenant_uid);
        self.floors.write().remove(tenant_uid);
    }

    /// Returns the lowest generation that all gateways of the tenant accept: the highest that any of them enforces, if
    /// that was ever above the published one.
    pub fn floor(&self, tenant_uid: &str) -> u64 {
        self.floors.read().get(tenant_uid).copied().unwrap_or_default()
    }

    /// Records that a gateway enforces a generation. Returns whether it is higher than the published one.
    pub fn raise_floor(&self, tenant_uid: &str, generation: u64) -> bool {
        let published = self.published(tenant_uid).map_or(0, |published| published.policy.generation);
        if generation <= published || generation > MAX_GENERATION {
            return false;
        }
        let mut floors = self.floors.write();
        let floor = floors.entry(tenant_uid.to_owned()).or_default();
        *floor = generation.max(*floor);
        true
    }

    fn update(&self, tenant_uid: &str, update: impl FnOnce(&mut PolicyState)) {
        let mut tenants = self.tenants.write();
        tenants
            .entry(tenant_uid.to_owned())
            .or_insert_with(|| watch::channel(PolicyState::default()).0)
            .send_modify(update);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_above_the_maximum_does_not_raise_the_floor() {
        let policies = Policies::default();
        assert!(policies.raise_floor("t", 7));
        assert!(!policies.raise_floor("t", u64::MAX));
        assert_eq!(policies.floor("t"), 7);
    }
}
