//! The gateways of a fleet on one machine, which are processes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use crate::control_server::{AuthError, GatewayPod, Gateways};
use crate::error::BoxError;

/// Gateways that run as processes on this machine, by the digest of the token that each was given.
#[derive(Debug, Default)]
pub(super) struct LocalGateways(RwLock<BTreeMap<[u8; 32], GatewayPod>>);

impl LocalGateways {
    /// Adds a gateway that is about to start. Its token is known to nobody else.
    pub(super) fn add(&self, token: &str, gateway: GatewayPod) {
        self.0.write().insert(digest(token), gateway);
    }

    /// Removes a gateway that has ended.
    pub(super) fn remove(&self, pod_uid: &str) {
        self.0.write().retain(|_, gateway| gateway.pod_uid != pod_uid);
    }

    /// Returns the gateway with this token. Looking up a digest tells nothing about the tokens by the time that it takes.
    fn with_token(&self, token: &str) -> Option<GatewayPod> {
        self.0.read().get(&digest(token)).cloned()
    }

    /// Returns whether a gateway runs.
    fn runs(&self, pod_uid: &str) -> bool {
        self.0.read().values().any(|gateway| gateway.pod_uid == pod_uid)
    }

    /// Returns the gateways of a tenant that run.
    fn of_tenant(&self, tenant_uid: &str) -> BTreeSet<String> {
        let gateways = self.0.read();
        let of_tenant = gateways.values().filter(|gateway| gateway.tenant_uid == tenant_uid);
        of_tenant.map(|gateway| gateway.pod_uid.clone()).collect()
    }
}

#[tonic::async_trait]
impl Gateways for LocalGateways {
    async fn authenticate(&self, token: &str) -> Result<GatewayPod, AuthError> {
        self.with_token(token).ok_or_else(|| AuthError::NotAuthenticated("no running gateway has it".into()))
    }

    async fn check_again(&self, gateway: &GatewayPod) -> Result<(), AuthError> {
        if self.runs(&gateway.pod_uid) { Ok(()) } else { Err(AuthError::Gone(gateway.pod.clone())) }
    }

    fn places(&self, _: &str) -> Option<usize> {
        Some(1)
    }

    fn address(&self, _: &str, _: &str) -> Option<IpAddr> {
        // There is one gateway of a tenant at a time.
        None
    }

    async fn running(&self, tenant_uid: &str) -> Result<Option<BTreeSet<String>>, BoxError> {
        Ok(Some(self.of_tenant(tenant_uid)))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
