//! The other gateways of the tenant that can be reached.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use mcp_fleet_control::homes;
use rustls::ClientConfig;
use tokio::sync::Notify;

use super::peer::Peer;
use crate::gateway::memory::{Account, Memory};
use crate::gateway::upstream::Dialer;
use crate::tls::client_config;

/// The other gateways of the tenant.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Absent if this gateway has no certificate of a gateway, and can forward nothing.
    tls: Option<Arc<ClientConfig>>,
    /// Account for idle connections.
    memory: Arc<Account>,
    known: ArcSwap<Vec<Arc<Peer>>>,
    /// Whether there are any: all that a tenant with one gateway pays for.
    any: AtomicBool,
    /// Notifies who waits for the first.
    first: Notify,
}

impl Peers {
    /// Returns no peers. `dialer` has the certificate of this gateway.
    pub(crate) fn new(dialer: &Dialer, memory: &Memory) -> Self {
        // Only a gateway of the same tenant is a peer: it has the same name.
        let tls = match dialer {
            Dialer::Mutual(identity) => identity.uri().and_then(|uri| client_config(Arc::clone(identity), &uri)).ok(),
            Dialer::Plain => None,
        };
        let memory = Arc::clone(&memory.connections);
        Self { tls, memory, known: ArcSwap::default(), any: AtomicBool::new(false), first: Notify::new() }
    }

    /// Replaces the peers by those of the newest answer of the leader. Keeps the connections to those that stay.
    pub(crate) fn set(&self, peers: Vec<homes::Peer>) {
        let Some(tls) = &self.tls else { return };
        let before = self.known.load();
        if before
            .iter()
            .map(|peer| (peer.pod_uid(), peer.address()))
            .eq(peers.iter().map(|peer| (&*peer.pod_uid, peer.address)))
        {
            return;
        }
        let known = peers.into_iter().map(|peer| {
            let same = before.iter().find(|known| known.pod_uid() == peer.pod_uid && known.address() == peer.address);
            same.cloned().unwrap_or_else(|| Arc::new(Peer::new(peer, Arc::clone(tls), Arc::clone(&self.memory))))
        });
        let known: Vec<_> = known.collect();
        let any = !known.is_empty();
        self.known.store(Arc::new(known));
        self.any.store(any, Ordering::Release);
        self.first.notify_waiters();
    }

    /// Waits until there are any.
    pub(crate) async fn wait(&self) {
        loop {
            let first = self.first.notified();
            tokio::pin!(first);
            first.as_mut().enable();
            if self.any() {
                return;
            }
            first.await;
        }
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.known.load().len()).unwrap_or(u32::MAX)
    }

    /// Returns whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Returns whether this is the address of one.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.known.load().iter().any(|peer| peer.address().ip().to_canonical() == address)
    }

    /// Returns the peer in the pod with this UID, if its address is known.
    pub(super) fn get(&self, pod_uid: &str) -> Option<Arc<Peer>> {
        self.known.load().iter().find(|peer| peer.pod_uid() == pod_uid).cloned()
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn prune(&self) {
        self.known.load().iter().for_each(|peer| peer.prune(Instant::now()));
    }
}
