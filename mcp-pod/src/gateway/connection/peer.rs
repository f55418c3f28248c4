//! Connections of other gateways of the tenant. They have places of their own, which no agent takes.
//!
//! Whoever connects has a place among strangers until its handshake has ended, if its address is not one of the peers'. One
//! address gets a few of these at a time. Afterwards the connection counts in the share of all peers, and while it carries a
//! request also in the part that the request's principal has of it. If the share is used up, the connection that has been idle
//! for longest makes room: the gateway at its other end may hold idle connections which others need.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::address_limit::{AddressLimit, AddressSlot, limited};
use super::{Client, Refusal};
use crate::gateway::memory::{Account, Full, Memory, PrincipalMemory, Reservation, Use};

/// Bytes of one connection: TLS and HTTP state with their buffers, and the head of a request.
const CONNECTION: usize = 48 * 1024;
/// Bytes that a request needs besides: what is read ahead of its body, and the allowance of a small request.
const REQUEST: usize = 32 * 1024;
/// Concurrent TLS handshakes of one peer.
const MAX_HANDSHAKES_PER_PEER: u32 = 64;
/// The same of an address that is not a peer's, as far as is known.
const MAX_HANDSHAKES_PER_STRANGER: u32 = 16;

/// The open connections of other gateways.
#[derive(Debug)]
pub(super) struct PeerPlaces {
    memory: Memory,
    of_peer: Arc<AddressLimit>,
    of_stranger: Arc<AddressLimit>,
    next: AtomicU64,
    /// Connections that carry no request, by their number.
    idle: Mutex<HashMap<u64, Idle, foldhash::fast::RandomState>>,
}

/// A connection that carries no request.
#[derive(Debug)]
struct Idle {
    since: Instant,
    reservation: Reservation,
    close: CancellationToken,
}

/// What one connection has reserved.
#[derive(Debug)]
pub(crate) struct PeerPlace {
    places: Arc<PeerPlaces>,
    number: u64,
    /// Cancelled when the connection has to end.
    close: CancellationToken,
    state: Mutex<PeerState>,
}

#[derive(Debug, Default)]
struct PeerState {
    is_secured: bool,
    /// What the connection has reserved. Absent while it is idle, and once it has made room for another.
    reservation: Option<Reservation>,
    /// The account for connections of the last request's principal.
    principal: Option<Arc<Account>>,
}

/// A request on a connection of another gateway, until its answer has been sent. The connection is idle afterwards.
#[derive(Debug)]
pub(crate) struct PeerRequest {
    client: Arc<Client>,
    memory: Option<[Reservation; 3]>,
}

impl PeerPlaces {
    pub(super) fn new(memory: Memory) -> Arc<Self> {
        Arc::new(Self {
            memory,
            of_peer: AddressLimit::new(MAX_HANDSHAKES_PER_PEER),
            of_stranger: AddressLimit::new(MAX_HANDSHAKES_PER_STRANGER),
            next: AtomicU64::new(0),
            idle: Mutex::default(),
        })
    }

    /// Admits a connection to the TLS handshake. `is_known` is whether its address is a peer's, and `close` is cancelled when it
    /// has to end.
    pub(super) fn accept(
        self: &Arc<Self>,
        address: IpAddr,
        is_known: bool,
        close: CancellationToken,
    ) -> Result<(Arc<Client>, AddressSlot), Refusal> {
        // Peers on one node can be in one network, and each has its own address.
        let (handshakes, counted) =
            if is_known { (&self.of_peer, address) } else { (&self.of_stranger, limited(address)) };
        let slot = handshakes.take(counted).ok_or(Refusal::Handshakes)?;
        let reservation = if is_known {
            self.reserve().map_err(refusal)?
        } else {
            self.memory.peer_strangers.reserve(CONNECTION, Use::Connection).map_err(|_| Refusal::Strangers)?
        };
        let place = PeerPlace {
            places: Arc::clone(self),
            number: self.next.fetch_add(1, Ordering::Relaxed),
            close,
            state: Mutex::new(PeerState { reservation: Some(reservation), ..PeerState::default() }),
        };
        Ok((Arc::new(Client::peer(address, place)), slot))
    }

    /// Reserves a connection in the share of all peers. If that is used up, the connection that has been idle for longest makes
    /// room.
    fn reserve(&self) -> Result<Reservation, Full> {
        self.memory.peers.reserve(CONNECTION, Use::Connection).or_else(|full| {
            let mut idle = self.idle.lock();
            let longest = idle.iter().min_by_key(|(_, idle)| idle.since).map(|(number, _)| *number);
            let Idle { reservation, close, .. } = longest.and_then(|number| idle.remove(&number)).ok_or(full)?;
            close.cancel();
            Ok(reservation)
        })
    }
}

/// Returns why a connection of another gateway is not accepted.
pub(super) const fn refusal(full: Full) -> Refusal {
    match full {
        Full::Share(_) => Refusal::Peers,
        Full::Process => Refusal::Process,
    }
}

impl PeerPlace {
    /// Notes that the handshake has ended: this is another gateway of the tenant, which has proved that by its certificate.
    pub(super) fn note_secured(&self) -> Result<(), Full> {
        let mut state = self.state.lock();
        let reservation = state.reservation.take().filter(|place| place.is_in(&self.places.memory.peers));
        let reservation = match reservation {
            Some(reservation) => reservation,
            None => self.places.reserve()?,
        };
        state.is_secured = true;
        self.note_idle(reservation);
        Ok(())
    }

    pub(super) fn is_secured(&self) -> bool {
        self.state.lock().is_secured
    }

    /// Returns the token that is cancelled when the connection has to end.
    pub(super) fn closing(&self) -> CancellationToken {
        self.close.clone()
    }

    /// Returns the accounts for what the other gateway does not read: that of all connections, and the principal's.
    pub(super) fn accounts_of_output(&self) -> (Arc<Account>, Option<Arc<Account>>) {
        let principal = self.state.lock().principal.clone();
        let all = &self.places.memory;
        // The share of peers is part of that of all connections.
        (Arc::clone(if principal.is_some() { &all.connections } else { &all.peers }), principal)
    }

    fn note_idle(&self, reservation: Reservation) {
        let idle = Idle { since: Instant::now(), reservation, close: self.close.clone() };
        self.places.idle.lock().insert(self.number, idle);
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let idle = self.places.idle.lock().remove(&self.number);
        drop(idle);
    }
}

impl PeerRequest {
    /// Begins a request on a connection; none if it is an agent's.
    pub(crate) fn begin(client: &Arc<Client>) -> Option<Self> {
        let place = client.as_peer()?;
        let idle = place.places.idle.lock().remove(&place.number);
        let mut state = place.state.lock();
        // If there is none, the connection has made room for another, and ends after this request.
        state.reservation = idle.map(|idle| idle.reservation);
        state.principal = None;
        drop(state);
        Some(Self { client: Arc::clone(client), memory: None })
    }

    /// Counts the request for its principal. Fails if the principal has too many.
    pub(crate) fn note_authenticated(&mut self, memory: &PrincipalMemory) -> Result<(), Full> {
        let Some(place) = self.client.as_peer() else { return Ok(()) };
        self.memory = Some([
            memory.peers.reserve(CONNECTION, Use::Connection)?,
            memory.connections.reserve(REQUEST, Use::Connection)?,
            place.places.memory.connections.reserve(REQUEST, Use::Connection)?,
        ]);
        place.state.lock().principal = Some(Arc::clone(&memory.connections));
        Ok(())
    }
}

impl Drop for PeerRequest {
    fn drop(&mut self) {
        let Some(place) = self.client.as_peer() else { return };
        let reservation = place.state.lock().reservation.take();
        if let Some(reservation) = reservation {
            place.note_idle(reservation);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use mcp_fleet_policy::units::Bytes as Size;

    use super::*;

    /// 24 MiB for connections: 12 MiB for peers, 4 MiB of them for each principal, and 3 MiB for strangers.
    fn places() -> Arc<PeerPlaces> {
        PeerPlaces::new(Memory::new(Size::new(72 << 20)))
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    fn accept(places: &Arc<PeerPlaces>, number: u32, known: bool) -> Result<(Arc<Client>, AddressSlot), Refusal> {
        places.accept(address(number), known, CancellationToken::new())
    }

    /// A connection that carries a request.
    type Busy = (Arc<Client>, PeerRequest);

    /// Accepts connections of a peer, each of which carries a request at once, until one is refused.
    fn fill(places: &Arc<PeerPlaces>) -> (Vec<Busy>, Refusal) {
        let mut clients = Vec::new();
        loop {
            match accept(places, 1, true) {
                Ok((client, _)) => {
                    client.as_peer().unwrap().note_secured().unwrap();
                    let request = PeerRequest::begin(&client).unwrap();
                    clients.push((client, request));
                }
                Err(refusal) => return (clients, refusal),
            }
            assert!(clients.len() < 1000);
        }
    }

    #[test]
    fn peers_have_a_share_of_their_own() {
        let places = places();
        let (clients, refusal) = fill(&places);
        assert_eq!((clients.len(), refusal), (256, Refusal::Peers), "half of the memory");
        assert_eq!(places.memory.strangers.used(), 0);
        // Strangers still get to their handshake, and not further.
        let (stranger, _slot) = accept(&places, 2, false).unwrap();
        assert_eq!(stranger.as_peer().unwrap().note_secured(), Err(Full::Share(12 << 20)));
        drop((clients, stranger));
        assert_eq!(places.memory.connections.used(), 0);
        assert!(places.idle.lock().is_empty());
    }

    #[test]
    fn strangers_cannot_take_the_places_of_peers() {
        let places = places();
        let mut strangers = Vec::new();
        let mut refusals = Vec::new();
        for number in 2..20 {
            loop {
                match accept(&places, number, false) {
                    Ok(stranger) => strangers.push(stranger),
                    Err(refusal) => break refusals.push(refusal),
                }
            }
        }
        assert_eq!(strangers.len(), 64, "an eighth of the memory");
        assert_eq!((refusals[0], refusals[17]), (Refusal::Handshakes, Refusal::Strangers), "16 of one address");
        let (clients, refusal) = fill(&places);
        assert_eq!((clients.len(), refusal), (256, Refusal::Peers));
        // Handshakes of one peer are bounded as well.
        drop(clients);
        let handshakes: Vec<_> = std::iter::from_fn(|| accept(&places, 1, true).ok()).collect();
        assert_eq!(handshakes.len(), 64);
    }

    #[test]
    fn an_idle_connection_makes_room() {
        let places = places();
        let (client, _) = accept(&places, 3, true).unwrap();
        let close = client.as_peer().unwrap().closing();
        client.as_peer().unwrap().note_secured().unwrap();
        let (clients, refusal) = fill(&places);
        // The idle connection gave its place to the last.
        assert_eq!((clients.len(), refusal, close.is_cancelled()), (256, Refusal::Peers, true));
        // A request that arrives at that moment is answered.
        let request = PeerRequest::begin(&client).unwrap();
        drop((request, client));
        assert_eq!(places.memory.peers.used(), 12 << 20);
        // One that carries a request has its place until the answer has been sent.
        let (first, request) = clients.into_iter().next().unwrap();
        assert!(!first.as_peer().unwrap().closing().is_cancelled());
        drop(request);
        drop(first);
    }

    #[test]
    fn a_principal_has_a_part_of_the_share() {
        let places = places();
        let (one, other) = (places.memory.of_principal(), places.memory.of_principal());
        let (mut clients, _) = fill(&places);
        let mut requests = clients.iter_mut().map(|(_, request)| request);
        let admitted =
            requests.by_ref().map(|request| request.note_authenticated(&one)).take_while(Result::is_ok).count();
        assert_eq!(admitted, 85, "a third of the share");
        assert!(requests.next().unwrap().note_authenticated(&other).is_ok());
        // What its clients do not read is its own.
        let unread: Vec<_> = std::iter::from_fn(|| clients[0].0.reserve_unread().ok()).collect();
        assert_eq!(unread.len(), (8 * 1024 - 85 * 32) / 128, "what is left of its connections");
        assert!(clients[86].0.reserve_unread().is_ok(), "another principal");
        assert_eq!(places.memory.peers.used(), 12 << 20);
        drop((unread, clients));
        assert_eq!((one.peers.used(), one.connections.used(), other.peers.used()), (0, 0, 0));
    }
}
