//! The memory that clients and their calls may use, so that no client can make the kernel kill the gateway.
//!
//! [`Memory`] is one budget in bytes, whose size [`size`] finds. A third of it is for connections, two thirds for the
//! bodies of requests, the values parsed from them, and answers. Each address has a share of the first part, and each
//! principal a share of both ([`account`]). What a request needs is reserved before its bytes are read
//! ([`request`]); a request that does not fit is rejected. What a typical small request needs is part of what its
//! connection has reserved, so it costs no reservation of its own.

mod account;
mod counted;
mod metrics;
mod request;
mod size;

use std::sync::Arc;

use mcp_fleet_policy::units::Bytes as Size;

pub(crate) use account::{Account, Full, Reservation, Use};
pub(crate) use counted::count;
pub(crate) use metrics::MemoryMetrics;
pub(crate) use request::{Meter, RequestMemory, VALUE};
pub use size::default_budget;

/// An answer that is larger than this part of the memory for requests is withheld, whatever its server may send.
const LARGEST_ANSWER: usize = 4;
/// Part of the memory for requests that one principal may use.
const REQUEST_SHARE: usize = 4;
/// Part of the memory for connections that one principal may use.
const CONNECTION_SHARE: usize = 3;
/// Part of the memory for connections that one address may use: not all that strangers may use.
const ADDRESS_SHARE: usize = 4;
/// Part of the memory for connections that the other gateways of the tenant may use together.
const PEER_SHARE: usize = 2;
/// Part of that which the requests of one principal may use.
const PEER_PRINCIPAL_SHARE: usize = 3;
/// Part of the memory for connections that unknown addresses may use which connect as other gateways do.
const PEER_STRANGERS: usize = 8;
/// Part of the memory for connections that clients may use which are not known.
const STRANGERS: usize = 3;

/// The memory that clients and their calls may use.
#[derive(Clone, Debug)]
pub struct Memory {
    /// What connections use, whether they are idle or not.
    pub(crate) connections: Arc<Account>,
    /// What the connections of clients use that are not known. Part of `connections`.
    pub(crate) strangers: Arc<Account>,
    /// What the connections of other gateways of the tenant use. Part of `connections`.
    pub(crate) peers: Arc<Account>,
    /// What connections use that may turn out to be those of other gateways. Part of `connections`.
    pub(crate) peer_strangers: Arc<Account>,
    /// What requests and answers use.
    pub(crate) requests: Arc<Account>,
}

/// The memory that one principal may use.
#[derive(Clone, Debug)]
pub(crate) struct PrincipalMemory {
    /// What its connections use. The shares of their addresses count it as part of the whole.
    pub(crate) connections: Arc<Account>,
    /// What the connections of other gateways use that carry its requests. Their share counts it as part of the whole.
    pub(crate) peers: Arc<Account>,
    /// What its requests and answers use.
    pub(crate) requests: Arc<Account>,
}

impl Memory {
    /// Returns a budget of this size, all of it free.
    pub fn new(budget: Size) -> Self {
        let budget = usize::try_from(budget.get()).unwrap_or(usize::MAX);
        let requests = budget - budget / 3;
        let connections = Account::new(budget / 3);
        Self {
            strangers: Account::new(connections.limit() / STRANGERS),
            peers: Account::share(&connections, connections.limit() / PEER_SHARE),
            peer_strangers: Account::share(&connections, connections.limit() / PEER_STRANGERS),
            requests: Account::new(requests),
            connections,
        }
    }

    /// Returns the share of one address.
    pub(crate) fn of_address(&self) -> Arc<Account> {
        Account::share(&self.connections, self.connections.limit() / ADDRESS_SHARE)
    }

    /// Returns the shares of one principal.
    pub(crate) fn of_principal(&self) -> PrincipalMemory {
        PrincipalMemory {
            connections: Account::new(self.connections.limit() / CONNECTION_SHARE),
            peers: Account::new(self.peers.limit() / PEER_PRINCIPAL_SHARE),
            requests: Account::share(&self.requests, self.requests.limit() / REQUEST_SHARE),
        }
    }
}

/// Returns the size of the largest answer that can be released, given the account of the caller.
pub(crate) fn largest_answer(account: &Account) -> usize {
    account.pool().limit() / LARGEST_ANSWER
}
