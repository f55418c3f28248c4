//! Answers the beats of gateways, which say whose calls they admit.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use mcp_fleet_control::clock::boot_millis;
use mcp_fleet_control::homes::{Peer, answer_to_wire, beat_from_wire};
use mcp_fleet_control::wire::{HomeBeat, HomesChanged, from_operator};
use mcp_fleet_homes::view::Member;
use mcp_fleet_policy::governor::SharedLimit;

use super::auth::GatewayPod;
use super::hub::{Gateways, Hub};
use super::spend::message;
use crate::error;
use crate::ledger::book::Holder;
use crate::shared_state::{Answered, BeatContext, Homes, Look, Outbound, Published, Streams};

/// Port at which gateways accept requests that other gateways of their tenant forward.
pub const PEER_PORT: u16 = 8444;

/// Where a beat comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender<'s> {
    pub(super) gateway: &'s GatewayPod,
    pub(super) holder: &'s Holder,
    /// Number of the stream.
    pub(super) stream: u64,
}

/// Answers a beat. Returns what has to be looked at afterwards, in a task of its own.
pub(super) fn answer_beat(
    homes: &Homes,
    streams: &Streams,
    published: &Published,
    Sender { gateway, holder, stream }: Sender<'_>,
    beat: HomeBeat,
    outbound: &Outbound,
    gateways: &dyn Gateways,
) -> Option<Look> {
    let (beat, mut usage) = beat_from_wire(beat)?;
    // What is remembered of a limit takes memory, so there is none that the tenant does not have.
    let servers: HashSet<&str> = published.policy.servers.iter().map(|server| server.uid.as_str()).collect();
    usage.demands.retain(|(limit, _)| match limit {
        SharedLimit::TenantRate | SharedLimit::TenantConcurrency => true,
        SharedLimit::ServerConcurrency(uid) => servers.contains(uid.as_str()),
    });
    let from = Member { pod_uid: holder.pod_uid.as_str().into(), epoch: holder.epoch.as_str().into() };
    let context = BeatContext {
        is_reachable: gateways.address(&gateway.namespace, &holder.pod_uid).is_some(),
        stale_after: published.policy.stale_after,
        places: gateways.places(&gateway.tenant_uid),
    };
    let answered = homes.receive(&gateway.tenant_uid, context, (&from, stream), (beat, usage), boot_millis())?;
    let Answered { answer, mut others, peers, concerned, look } = answered;
    let peer = |pod_uid: Arc<str>| {
        let address = SocketAddr::new(gateways.address(&gateway.namespace, &pod_uid)?, PEER_PORT);
        Some(Peer { pod_uid: pod_uid.as_ref().to_owned(), address })
    };
    others.peers = peers.into_iter().filter_map(peer).collect();
    // If the queue is full, the gateway reads no messages, and soon has no lease.
    let _ = outbound.try_send(Ok(message(from_operator::Message::HomeAnswer(answer_to_wire(&answer, others)))));
    announce(streams, &concerned);
    look
}

/// Looks at the pods of a tenant, for gateways that have ended.
pub(super) async fn look(hub: Arc<Hub>, homes: Arc<Homes>, tenant_uid: String, look: Look) {
    let running = hub.gateways.running(&tenant_uid).await.unwrap_or_else(|error| {
        tracing::warn!(tenant_uid, error = error::chain(&*error), "failed to list the pods of a gateway");
        None
    });
    announce(&hub.shared_state.streams, &homes.looked(&tenant_uid, &look, running.as_ref()));
}

/// Has gateways send a beat now instead of within a second.
fn announce(streams: &Streams, pod_uids: &[String]) {
    for pod_uid in pod_uids {
        streams.send(pod_uid, message(from_operator::Message::HomesChanged(HomesChanged {})));
    }
}
