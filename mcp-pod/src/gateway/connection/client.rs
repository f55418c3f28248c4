//! The client at the other end of one connection, as far as it is known.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::peer::PeerPlace;
use super::places::{AddressShare, Places};
use crate::gateway::memory::{Account, Full, Reservation, Use};

/// Bytes of one HTTP/1.1 connection: TLS and HTTP state with their buffers (33 KiB when idle), input up to
/// [`MAX_INPUT`], and the allowance of a small request.
pub(super) const CONNECTION: usize = 64 * 1024;
/// Bytes that one HTTP/2 connection needs in addition: its receive window, the heads and small answers of its streams,
/// and a handshake message in TLS.
const HTTP2: usize = 192 * 1024;
/// Bytes that wait for a client that does not read, beyond the answers themselves: 64 KiB in TLS and up to as much in the
/// kernel.
const UNREAD_OUTPUT: usize = 128 * 1024;
/// Bytes that an HTTP/1.1 client may send before they are part of a request: the largest head, one TLS record, and what
/// is read ahead.
const MAX_INPUT: usize = 40 * 1024;

/// The other end of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    place: Place,
    /// Bytes received that are not part of a request yet, and their limit. Only the connection's thread changes them.
    input: AtomicUsize,
    max_input: AtomicUsize,
}

/// Who is at the other end, and what the connection has reserved.
#[derive(Debug)]
enum Place {
    /// An agent.
    Agent(AgentPlace),
    /// Another gateway of the tenant, whose requests are its clients'.
    Peer(PeerPlace),
}

#[derive(Debug)]
struct AgentPlace {
    places: Arc<Places>,
    share: AddressShare,
    connection: Mutex<Reservation>,
    /// The place that the connection takes until a request of the client is authenticated: among those of strangers, or of
    /// the principal that is known to use the address.
    provisional: Mutex<Option<Reservation>>,
    /// The principal of the first authenticated request: its account, and what this connection uses of it.
    principal: OnceLock<(Arc<Account>, Option<Reservation>)>,
}

impl Client {
    pub(super) fn new(
        address: IpAddr,
        places: Arc<Places>,
        share: AddressShare,
        provisional: Reservation,
    ) -> Result<Self, Full> {
        let connection = Mutex::new(share.account().reserve(CONNECTION, Use::Connection)?);
        let provisional = Mutex::new(Some(provisional));
        let place = AgentPlace { places, share, connection, provisional, principal: OnceLock::new() };
        Ok(Self::at(address, Place::Agent(place)))
    }

    pub(super) const fn peer(address: IpAddr, place: PeerPlace) -> Self {
        Self::at(address, Place::Peer(place))
    }

    const fn at(address: IpAddr, place: Place) -> Self {
        Self { address, place, input: AtomicUsize::new(0), max_input: AtomicUsize::new(MAX_INPUT) }
    }

    /// Notes that a request of this agent was authenticated. The first time, the connection becomes one of the principal's,
    /// whose account this is, and its address is known. Fails if the principal has too many connections.
    pub(crate) fn note_authenticated(&self, account: &Arc<Account>) -> Result<(), Full> {
        match &self.place {
            Place::Agent(place) if place.principal.get().is_none() => place.note_authenticated(self.address, account),
            Place::Agent(_) | Place::Peer(_) => Ok(()),
        }
    }

    /// Returns the place of this client, if it is another gateway of the tenant.
    pub(crate) const fn as_peer(&self) -> Option<&PeerPlace> {
        match &self.place {
            Place::Agent(_) => None,
            Place::Peer(place) => Some(place),
        }
    }

    /// Returns whether a request of this client was authenticated, or the client itself.
    pub(super) fn is_authenticated(&self) -> bool {
        match &self.place {
            Place::Agent(place) => place.principal.get().is_some(),
            Place::Peer(place) => place.is_secured(),
        }
    }

    /// Reserves what an HTTP/2 connection needs. Its own limits and windows then bound its input.
    pub(super) fn upgrade_to_http2(&self) -> Result<(), Full> {
        if let Place::Agent(place) = &self.place {
            place.connection.lock().grow(HTTP2, Use::Connection)?;
        }
        self.max_input.store(usize::MAX, Ordering::Relaxed);
        Ok(())
    }

    /// Counts received bytes. Returns whether the client may send more before they become part of a request.
    pub(super) fn add_input(&self, bytes: usize) -> bool {
        let input = self.input.load(Ordering::Relaxed).saturating_add(bytes);
        self.input.store(input, Ordering::Relaxed);
        input <= self.max_input.load(Ordering::Relaxed)
    }

    /// Notes that what was received is part of a request, or of the handshake.
    pub(crate) fn claim_input(&self) {
        self.input.store(0, Ordering::Relaxed);
    }

    /// Reserves what waits for a client that does not read: in the share of its address and that of its principal. What waits
    /// for a client of another gateway counts for the principal of the request.
    pub(super) fn reserve_unread(&self) -> Result<[Option<Reservation>; 2], Full> {
        let reserve = |account: &Arc<Account>| account.reserve(UNREAD_OUTPUT, Use::Connection);
        match &self.place {
            Place::Agent(AgentPlace { share, principal, .. }) => {
                Ok([Some(reserve(share.account())?), principal.get().map(|(account, _)| reserve(account)).transpose()?])
            }
            Place::Peer(place) => {
                let (all, principal) = place.accounts_of_output();
                Ok([Some(reserve(&all)?), principal.as_ref().map(reserve).transpose()?])
            }
        }
    }
}

impl AgentPlace {
    fn note_authenticated(&self, address: IpAddr, account: &Arc<Account>) -> Result<(), Full> {
        let bytes = self.connection.lock().bytes();
        let mut provisional = self.provisional.lock();
        let place = match &mut *provisional {
            Some(place) if place.is_in(account) => {
                place.grow(bytes - CONNECTION, Use::Connection)?;
                provisional.take()
            }
            _ => Some(account.reserve(bytes, Use::Connection)?),
        };
        *provisional = None;
        drop(provisional);
        // With HTTP/2, another request may have been first.
        let _ = self.principal.set((Arc::clone(account), place));
        self.places.note_known(address, account, Instant::now());
        Ok(())
    }
}
