//! What the publisher leaves for the streams: each tenant's newest policy, and the proof that it is fresh.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use mcp_fleet_control::EncodedPolicy;
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ledger::{ApiStore, Ledger};

/// A policy that stands in its snapshot.
#[derive(Clone, Debug)]
pub struct Published {
    /// The policy.
    pub policy: Arc<TenantPolicy>,
    /// Its canonical bytes and their digest.
    pub encoded: Arc<EncodedPolicy>,
}

/// The operator knew at that moment that nothing newer than this generation had been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The generation.
    pub generation: u64,
    /// When the consistent read began.
    pub read: Instant,
}

/// What is known of one tenant.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    /// The newest policy; none yet.
    pub published: Option<Published>,
    /// The newest proof; none yet.
    pub proof: Option<Proof>,
}

/// What only a leader has.
#[derive(Clone, Debug)]
pub struct Leading {
    /// The ledger.
    pub ledger: Arc<Ledger<ApiStore>>,
    /// Cancelled when this replica no longer leads.
    pub ended: CancellationToken,
}

/// The policies and proofs of all tenants, by UID, while this replica leads.
#[derive(Debug, Default)]
pub struct Hub {
    tenants: RwLock<HashMap<String, watch::Sender<Outlook>>>,
    floors: RwLock<HashMap<String, u64>>,
    leading: RwLock<Option<Leading>>,
}

/// Generations above this are nobody's: a number that JSON readers could round.
const MAX_FLOOR: u64 = 1 << 53;

impl Hub {
    /// What a leader has; none: another replica leads, or the ledger has not been read yet.
    pub fn leading(&self) -> Option<Leading> {
        self.leading.read().clone()
    }

    /// Begins to lead. Leading ends when the guard is dropped: policies are forgotten, and streams end.
    pub fn lead(&self, ledger: Arc<Ledger<ApiStore>>) -> impl Drop + use<'_> {
        struct Guard<'a>(&'a Hub, CancellationToken);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                *self.0.leading.write() = None;
                // Before the tenants are forgotten: streams tell one from the other.
                self.1.cancel();
                self.0.tenants.write().clear();
                self.0.floors.write().clear();
            }
        }
        let ended = CancellationToken::new();
        *self.leading.write() = Some(Leading { ledger, ended: ended.clone() });
        Guard(self, ended)
    }

    /// Follows a tenant.
    pub fn follow(&self, tenant_uid: &str) -> watch::Receiver<Outlook> {
        let mut tenants = self.tenants.write();
        tenants.entry(tenant_uid.to_owned()).or_insert_with(|| watch::channel(Outlook::default()).0).subscribe()
    }

    /// The newest policy of a tenant.
    pub fn published(&self, tenant_uid: &str) -> Option<Published> {
        self.tenants.read().get(tenant_uid)?.borrow().published.clone()
    }

    /// The newest policies of all tenants.
    pub fn all(&self) -> Vec<Published> {
        self.tenants.read().values().filter_map(|tenant| tenant.borrow().published.clone()).collect()
    }

    /// Sets the newest policy of a tenant. The last proof holds for it too: what was known then is part of it.
    pub fn publish(&self, tenant_uid: &str, published: Published) {
        let generation = published.policy.generation;
        self.change(tenant_uid, |outlook| {
            let proof = outlook.proof.map(|proof| Proof { generation, ..proof });
            *outlook = Outlook { published: Some(published), proof };
        });
    }

    /// Sets the newest proof for a tenant.
    pub fn prove(&self, tenant_uid: &str, proof: Proof) {
        self.change(tenant_uid, |outlook| outlook.proof = Some(proof));
    }

    /// Forgets a tenant: its streams end.
    pub fn forget(&self, tenant_uid: &str) {
        self.tenants.write().remove(tenant_uid);
        self.floors.write().remove(tenant_uid);
    }

    /// The lowest generation that the tenant's gateways would take.
    pub fn floor(&self, tenant_uid: &str) -> u64 {
        self.floors.read().get(tenant_uid).copied().unwrap_or_default()
    }

    /// A gateway says that it enforces this generation. Answers whether it lies above what was published.
    pub fn raise_floor(&self, tenant_uid: &str, generation: u64) -> bool {
        let published = self.published(tenant_uid).map_or(0, |published| published.policy.generation);
        if generation <= published || generation > MAX_FLOOR {
            return false;
        }
        let mut floors = self.floors.write();
        let floor = floors.entry(tenant_uid.to_owned()).or_default();
        *floor = generation.max(*floor);
        true
    }

    fn change(&self, tenant_uid: &str, change: impl FnOnce(&mut Outlook)) {
        let mut tenants = self.tenants.write();
        tenants
            .entry(tenant_uid.to_owned())
            .or_insert_with(|| watch::channel(Outlook::default()).0)
            .send_modify(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_above_every_number_is_not_believed() {
        let hub = Hub::default();
        assert!(hub.raise_floor("t", 7));
        assert!(!hub.raise_floor("t", u64::MAX));
        assert_eq!(hub.floor("t"), 7);
    }
}
