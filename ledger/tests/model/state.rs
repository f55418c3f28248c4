//! The state of the model: what the API server has stored, what operators and gateways have in memory, and the messages
//! between them.

use std::collections::BTreeMap;

use mcp_fleet_ledger::book::{Book, Holder};
use mcp_fleet_policy::budget::{LeaseAnswer, LeasePool, LeaseRequest, Reservation, SpendReport};

use crate::operator::Operator;
use crate::shared::Shared;

/// Identifies a book: the number of its budget, and the start of its period.
pub(crate) type Key = (usize, i64);

/// Everything that the next step depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// What the API server has stored.
    pub(crate) store: BTreeMap<Key, Shared<Book>>,
    /// In the order of their hashes: nothing distinguishes operators but their state.
    pub(crate) operators: Vec<Shared<Operator>>,
    pub(crate) gateways: Vec<Shared<Gateway>>,
    /// Messages on their way, which arrive in any order. Sorted.
    pub(crate) network: Vec<Shared<Body>>,
    /// Index of the time.
    pub(crate) time: usize,
    /// How often a lease request arrived. Ids of leases must differ.
    pub(crate) arrived: BTreeMap<(Process, u64), u64>,
    /// What may still happen.
    pub(crate) left: Left,
    pub(crate) seen: Seen,
}

/// How much may still happen. Bounds the number of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    /// Attempts to make a call. The first one asks for a lease.
    pub(crate) attempts: u8,
    pub(crate) faults: u8,
}

/// What an observer of the whole fleet has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// By book: calls that were admitted.
    pub(crate) begun: BTreeMap<Key, u64>,
    /// By book: admitted calls that certainly never reached a server.
    pub(crate) unspent: BTreeMap<Key, u64>,
    /// By book: the highest limit that was in force when a lease was granted.
    pub(crate) highest_limit: BTreeMap<Key, u64>,
    /// Whether something happened after which money may be forfeited.
    pub(crate) lossy: bool,
    /// How often streams broke. Money may be forfeited if an answer is lost twice.
    pub(crate) breaks: u8,
}

impl Seen {
    /// Returns the calls of a book that reached a server, or may have.
    pub(crate) fn audited(&self, key: &Key) -> u64 {
        let of = |counts: &BTreeMap<Key, u64>| counts.get(key).copied().unwrap_or(0);
        of(&self.begun) - of(&self.unspent)
    }
}

/// One gateway pod. Its process may end; another one then starts in the same pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gateway {
    pub(crate) epoch: u64,
    pub(crate) pool: LeasePool,
    /// Calls in flight.
    pub(crate) held: Vec<Reservation>,
    /// Time of the last tick.
    pub(crate) ticked: usize,
    /// Whether it has tried to make a call.
    pub(crate) used: bool,
}

/// One process of a gateway: number of the gateway, and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process(pub(crate) usize, pub(crate) u64);

impl Process {
    pub(crate) fn holder(self) -> Holder {
        Holder { pod_uid: pod(self.0), epoch: self.1.to_string() }
    }
}

pub(crate) fn pod(gateway: usize) -> String {
    format!("pod-{gateway}")
}

/// A message. Those to the ledger may arrive at any operator: more than one may believe that it leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Body {
    Hello { from: Process },
    Request { from: Process, request: LeaseRequest },
    Report { from: Process, report: SpendReport },
    Answer { to: Process, answer: LeaseAnswer },
    Acknowledgement { to: Process, lease: String, sequence: u64 },
    Recall { gateway: usize, lease: String },
}

impl Body {
    pub(crate) const fn is_to_ledger(&self) -> bool {
        matches!(self, Self::Hello { .. } | Self::Request { .. } | Self::Report { .. })
    }

    /// Returns the gateway that sent the message or gets it.
    pub(crate) const fn gateway(&self) -> usize {
        match self {
            Self::Hello { from }
            | Self::Request { from, .. }
            | Self::Report { from, .. }
            | Self::Answer { to: from, .. }
            | Self::Acknowledgement { to: from, .. } => from.0,
            Self::Recall { gateway, .. } => *gateway,
        }
    }
}

impl State {
    pub(crate) fn send(&mut self, body: Body) {
        let body = Shared::new(body);
        let at = self.network.partition_point(|other| other.order() < body.order());
        self.network.insert(at, body);
    }

    /// Sorts the operators, so that states that differ in their order are one.
    pub(crate) fn normalize(&mut self) {
        self.operators.sort_by_key(Shared::order);
    }
}
