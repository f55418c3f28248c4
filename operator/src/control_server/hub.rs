//! What control streams need of the process that serves them, which is a replica of the operator or a fleet on one machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kube::Client;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::auth::GatewayPod;
use super::server_reports::ServerReports;
use crate::audit::Checkpoints;
use crate::context::Context;
use crate::kubernetes::cache::Cache;
use crate::kubernetes::events::Events;
use crate::shared_state::SharedState;

/// What all control streams share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub shared_state: Arc<SharedState>,
    pub gateways: Gateways,
    pub events: Events,
    /// The ends of the audit logs of gateways; none if they are not kept.
    pub audit: Option<Checkpoints>,
    /// The reports of tool servers; none if they are not kept.
    pub reports: Option<Arc<ServerReports>>,
}

impl Hub {
    /// Returns the hub of a replica.
    pub(crate) fn of(ctx: &Context) -> Self {
        Self {
            shared_state: Arc::clone(&ctx.shared_state),
            gateways: Gateways::Pods(Box::new(Pods { client: ctx.client.clone(), cache: ctx.cache.clone() })),
            events: ctx.events.clone(),
            audit: Some(ctx.audit.clone()),
            reports: Some(Arc::new(ServerReports::new(ctx.client.clone(), ctx.cache.clone()))),
        }
    }
}

/// The gateways that may connect.
#[derive(Clone)]
pub(crate) enum Gateways {
    /// Pods, about which the API server is asked.
    Pods(Box<Pods>),
    /// Processes that this one has started.
    Local(Arc<LocalGateways>),
}

impl Gateways {
    /// Returns the address of a gateway's pod, if it is known.
    pub(super) fn address(&self, namespace: &str, pod_uid: &str) -> Option<IpAddr> {
        match self {
            Self::Pods(pods) => pods.cache.gateway_address(namespace, pod_uid),
            // There is one gateway of a tenant at a time.
            Self::Local(_) => None,
        }
    }
}

/// What is asked about pods.
#[derive(Clone)]
pub(crate) struct Pods {
    pub client: Client,
    pub cache: Cache,
}

impl std::fmt::Debug for Gateways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pods(_) => "Pods",
            Self::Local(_) => "Local",
        })
    }
}

/// Gateways that run as processes on this machine, by the digest of the token that each was given.
#[derive(Debug, Default)]
pub(crate) struct LocalGateways(RwLock<BTreeMap<[u8; 32], GatewayPod>>);

impl LocalGateways {
    /// Adds a gateway that is about to start. Its token is known to nobody else.
    pub(crate) fn add(&self, token: &str, gateway: GatewayPod) {
        self.0.write().insert(digest(token), gateway);
    }

    /// Removes a gateway that has ended.
    pub(crate) fn remove(&self, pod_uid: &str) {
        self.0.write().retain(|_, gateway| gateway.pod_uid != pod_uid);
    }

    /// Returns the gateway with this token. Looking up a digest tells nothing about the tokens by the time that it takes.
    pub(super) fn with_token(&self, token: &str) -> Option<GatewayPod> {
        self.0.read().get(&digest(token)).cloned()
    }

    /// Returns whether a gateway runs.
    pub(super) fn runs(&self, pod_uid: &str) -> bool {
        self.0.read().values().any(|gateway| gateway.pod_uid == pod_uid)
    }

    /// Returns the gateways of a tenant that run.
    pub(super) fn of_tenant(&self, tenant_uid: &str) -> BTreeSet<String> {
        let gateways = self.0.read();
        let of_tenant = gateways.values().filter(|gateway| gateway.tenant_uid == tenant_uid);
        of_tenant.map(|gateway| gateway.pod_uid.clone()).collect()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
