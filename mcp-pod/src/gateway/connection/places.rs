//! Which connections are accepted: as many as fit into the memory for connections.
//!
//! Each address has a share, and so has each principal. A connection counts as one of the principal's from its start if
//! an authenticated request of the principal has come from the address before. All others share one part of the memory,
//! so that strangers cannot keep known clients out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::address_limit::limited;
use super::client::{CONNECTION, Client};
use crate::gateway::memory::{Account, Full, Memory, Use};

/// How long an address is known after the first authenticated request of a connection from it.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Addresses that are known at most.
const MAX_KNOWN: usize = 4096;

/// Why a connection was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The address has used up its share.
    Address,
    /// Too many TLS handshakes of the address are not finished.
    Handshakes,
    /// Clients that are not known have used up their part.
    Strangers,
    /// Other gateways of the tenant have used up their part.
    Peers,
    /// All memory for connections is used up.
    Process,
}

impl Refusal {
    pub(crate) const ALL: [Self; 5] = [Self::Address, Self::Handshakes, Self::Strangers, Self::Peers, Self::Process];

    /// Returns the name in metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Handshakes => "handshakes",
            Self::Strangers => "strangers",
            Self::Peers => "peers",
            Self::Process => "process",
        }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Share(_) => Self::Address,
            Full::Process => Self::Process,
        }
    }
}

/// The open connections.
#[derive(Debug)]
pub(super) struct Places {
    memory: Memory,
    /// Shares of the addresses that have connections, and the number of these. A network of IPv6 has one share.
    shares: Mutex<HashMap<IpAddr, (Arc<Account>, usize), foldhash::fast::RandomState>>,
    /// Addresses that authenticated requests have come from.
    known: Mutex<HashMap<IpAddr, Known, foldhash::fast::RandomState>>,
}

/// The last principal that is known to use an address.
#[derive(Debug)]
struct Known {
    since: Instant,
    /// The principal's account for connections.
    account: Arc<Account>,
}

/// The share of an address, removed with its last connection.
#[derive(Debug)]
pub(super) struct AddressShare {
    address: IpAddr,
    account: Arc<Account>,
    places: Arc<Places>,
}

impl Places {
    pub(super) fn new(memory: Memory) -> Arc<Self> {
        Arc::new(Self { memory, shares: Mutex::default(), known: Mutex::default() })
    }

    /// Accepts a connection from the address, if there is room.
    pub(super) fn accept(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Arc<Client>, Refusal> {
        let of_principal = self.known_account(address, now).map(|account| account.reserve(CONNECTION, Use::Connection));
        let provisional = if let Some(Ok(place)) = of_principal {
            place
        } else {
            // Even if its principal has no more places: the address may have another principal as well.
            let place = self.memory.strangers.reserve(CONNECTION, Use::Connection);
            place.map_err(|_| Refusal::Strangers)?
        };
        let client = Client::new(address, Arc::clone(self), self.share(address), provisional);
        Ok(client.map(Arc::new)?)
    }

    fn share(self: &Arc<Self>, address: IpAddr) -> AddressShare {
        let address = limited(address);
        let mut shares = self.shares.lock();
        let (account, connections) = shares.entry(address).or_insert_with(|| (self.memory.of_address(), 0));
        *connections += 1;
        AddressShare { address, account: Arc::clone(account), places: Arc::clone(self) }
    }

    fn known_account(&self, address: IpAddr, now: Instant) -> Option<Arc<Account>> {
        let known = self.known.lock();
        known.get(&address).filter(|known| known.is_valid(now)).map(|known| Arc::clone(&known.account))
    }

    /// Notes that an authenticated request of the principal with this account came from the address.
    pub(super) fn note_known(&self, address: IpAddr, account: &Arc<Account>, now: Instant) {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, known| known.is_valid(now));
        }
        if known.len() < MAX_KNOWN || known.contains_key(&address) {
            known.insert(address, Known { since: now, account: Arc::clone(account) });
        }
    }
}

impl Known {
    fn is_valid(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < KNOWN_FOR
    }
}

impl AddressShare {
    pub(super) const fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for AddressShare {
    fn drop(&mut self) {
        let mut shares = self.places.shares.lock();
        if let Some((_, connections)) = shares.get_mut(&self.address) {
            *connections -= 1;
            if *connections == 0 {
                shares.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use mcp_fleet_policy::units::Bytes as Size;

    use super::*;

    fn memory() -> Memory {
        Memory::new(Size::new(72 << 20))
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    /// Accepts connections from an address until one is refused.
    fn fill(places: &Arc<Places>, address: IpAddr) -> (Vec<Arc<Client>>, Refusal) {
        let mut clients = Vec::new();
        loop {
            match places.accept(address, Instant::now()) {
                Ok(client) => clients.push(client),
                Err(refusal) => return (clients, refusal),
            }
        }
    }

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        // 24 MiB for connections: 6 MiB for each address.
        let places = Places::new(memory());
        let (clients, refusal) = fill(&places, address(1));
        assert_eq!((clients.len(), refusal), (96, Refusal::Address));
        assert!(places.accept(address(2), Instant::now()).is_ok());
        drop(clients);
        assert!(places.accept(address(1), Instant::now()).is_ok());
        assert!(places.shares.lock().is_empty(), "addresses without connections are removed");
    }

    #[test]
    fn a_network_of_ipv6_gets_one_share() {
        let places = Places::new(memory());
        let address = |number: u128| IpAddr::V6((0x2001_0db8_u128 << 96 | number).into());
        let clients: Vec<_> = (0..96).map(|number| places.accept(address(number), Instant::now()).unwrap()).collect();
        assert_eq!(places.accept(address(1000), Instant::now()).unwrap_err(), Refusal::Address);
        assert!(places.accept(address(1 << 64), Instant::now()).is_ok());
        drop(clients);
        assert!(places.shares.lock().is_empty());
    }

    #[test]
    fn strangers_cannot_take_the_places_of_known_addresses() {
        let places = Places::new(memory());
        let principal = memory().of_principal().connections;
        places.accept(address(1), Instant::now()).unwrap().note_authenticated(&principal).unwrap();
        let strangers: Vec<_> = (2..10).map(|number| fill(&places, address(number))).collect();
        let accepted: usize = strangers.iter().map(|(clients, _)| clients.len()).sum();
        assert_eq!((accepted, strangers[7].1), (128, Refusal::Strangers), "a third of the memory");
        let (known, refusal) = fill(&places, address(1));
        assert_eq!((known.len(), refusal), (96, Refusal::Address));
        drop(known);
        let later = Instant::now() + KNOWN_FOR;
        assert_eq!(places.accept(address(1), later).unwrap_err(), Refusal::Strangers, "no longer known");
        // A stranger that is authenticated makes room for another.
        strangers[0].0[0].note_authenticated(&principal).unwrap();
        assert!(places.accept(address(20), Instant::now()).is_ok());
    }

    #[test]
    fn a_principal_gets_its_share_of_the_connections_and_no_more() {
        let places = Places::new(memory());
        let principal = memory().of_principal().connections;
        let clients: Vec<_> = (1..=128).map(|number| places.accept(address(number), Instant::now()).unwrap()).collect();
        assert!(clients[..100].iter().all(|client| client.note_authenticated(&principal).is_ok()));
        // Connections from its addresses are its own before they have a request.
        let idle: Vec<_> = (1..=28).map(|number| places.accept(address(number), Instant::now()).unwrap()).collect();
        assert!(clients[127].note_authenticated(&principal).is_err() && !clients[127].is_authenticated());
        assert!(idle.iter().all(|client| client.note_authenticated(&principal).is_ok()));
        assert!(clients[0].note_authenticated(&principal).is_ok(), "a later request of an admitted connection");
        drop((clients, idle));
        assert_eq!(principal.used(), 0);
    }

    #[test]
    fn input_is_bounded_until_it_is_part_of_a_request() {
        let client = Places::new(memory()).accept(address(1), Instant::now()).unwrap();
        assert!(client.add_input(20 * 1024) && client.add_input(20 * 1024) && !client.add_input(1));
        client.claim_input();
        assert!(client.add_input(40 * 1024));
        client.upgrade_to_http2().unwrap();
        assert!(client.add_input(1 << 30), "HTTP/2 has limits of its own");
    }

    #[test]
    fn the_number_of_known_addresses_is_bounded() {
        let (places, principal) = (Places::new(memory()), memory().of_principal().connections);
        for number in 0..10_000 {
            places.note_known(address(number), &principal, Instant::now());
        }
        assert_eq!(places.known.lock().len(), MAX_KNOWN);
    }
}
