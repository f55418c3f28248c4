//! The gateway's side of budgets: the leases it holds, and what calls reserved and spent from them.
//!
//! The ledger charges a lease to its budget before the gateway receives it, so every reservation is covered. A call
//! reserves from every budget that covers it or from none, and is charged in full unless the server certainly never
//! saw it. A budget that only monitors is counted in the same way, but no call waits for its leases: what no lease covers is
//! added to the next one. [`LeasePool`] does no I/O: its driver sends the requests and reports that the pool returns
//! (reports first, so that returned amounts can be leased again) and passes the answers back in.

mod account;
mod items;
mod lease;
#[cfg(feature = "model-checking")]
mod model;
mod pool;

use std::time::Duration;

use crate::denial::Denial;
use crate::units::Micros;

pub use pool::LeasePool;

/// A call that needs a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PricedCall<'c> {
    /// `<namespace>/<name>` of the caller.
    pub principal: &'c str,
    /// Name of the server.
    pub server: &'c str,
    /// Name of the tool.
    pub tool: &'c str,
    /// Price of the call; the most that it costs, if its result states the price.
    pub price: Micros,
}

/// Result of [`LeasePool::reserve`].
#[derive(Debug)]
pub enum ReserveOutcome {
    /// The call is covered; settle the reservation when the call ends.
    Reserved(Reservation),
    /// A lease is missing and has been queued for [`LeasePool::take_lease_requests`]; reserve again once it is answered.
    NeedLease,
    /// The call cannot be covered.
    Denied(Denial),
}

/// Amounts that one call reserves from leases. Pass it to [`LeasePool::settle`] exactly once; a reservation that is dropped
/// instead counts as spent when its leases end.
#[must_use = "a reservation has to be settled"]
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "model-checking", derive(Clone, Hash))]
pub struct Reservation {
    parts: Vec<ReservationPart>,
}

/// The amount that a reservation takes from one budget.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "model-checking", derive(Clone, Hash))]
struct ReservationPart {
    source: Source,
    /// Index of the principal and tool in the items of the source.
    item: usize,
    spend: Spend,
}

/// What a reservation takes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "model-checking", derive(Hash))]
enum Source {
    /// The lease with this number in the pool.
    Lease(u64),
    /// The monitored budget with this UID, which had no lease.
    Unleased(Box<str>),
}

/// How much of a reservation a settled call spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Charge {
    /// The whole reservation: the server saw the call, or may have.
    Full,
    /// One call, and this much of the money: the server saw the call, and its result states the price.
    Stated(Micros),
    /// Nothing: the server certainly never saw the call.
    Nothing,
}

/// What a gateway knows about what is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStanding {
    /// Whether calls can be paid.
    pub state: BudgetState,
    /// Amounts; absent if the ledger has not sent any in this period.
    pub remaining: Option<Remaining>,
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Money: what the open leases of the gateway hold now, and what was in no lease at `age`. Absent where the budget sets
    /// no limit.
    pub amount: Option<Micros>,
    /// Calls, in the same way.
    pub calls: Option<u64>,
    /// Money that all gateways had reported as spent at `age`.
    pub spent_amount: Micros,
    /// Calls, in the same way.
    pub spent_calls: u64,
    /// How long ago the ledger has sent this.
    pub age: Duration,
}

/// What the ledger says about a budget in one period. Agents are shown it; nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BudgetBalance {
    /// UID of the budget.
    pub budget_uid: String,
    /// Money that is in no lease, spent or forfeited. Absent where the budget sets no limit.
    pub left_amount: Option<Micros>,
    /// Calls, in the same way.
    pub left_calls: Option<u64>,
    /// Money that was spent, as far as it is reported.
    pub spent_amount: Micros,
    /// Calls that were made, as far as they are reported.
    pub spent_calls: u64,
    /// End of the period, in Unix seconds.
    pub period_end: i64,
    /// When this was true, in Unix milliseconds of the ledger's clock.
    pub as_of: i64,
}

/// Whether calls can be paid from a budget, from the leases that the ledger granted or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetState {
    /// The gateway has a lease with room for a call.
    Available,
    /// The ledger refused a lease in the current period, and has granted none since.
    Exhausted,
    /// Neither: no call was made recently.
    Unknown,
}

/// An amount of money and a number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Spend {
    amount: Micros,
    calls: u64,
}

impl Spend {
    const fn is_nothing(self) -> bool {
        self.amount.get() == 0 && self.calls == 0
    }

    fn covers(self, other: Self) -> bool {
        self.amount >= other.amount && self.calls >= other.calls
    }

    const fn plus(self, other: Self) -> Self {
        Self { amount: self.amount.saturating_add(other.amount), calls: self.calls.saturating_add(other.calls) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { amount: self.amount.saturating_sub(other.amount), calls: self.calls.saturating_sub(other.calls) }
    }
}

impl Charge {
    /// Returns how much of a reservation is spent.
    fn of(self, reserved: Spend) -> Spend {
        match self {
            Self::Full => reserved,
            Self::Stated(amount) => Spend { amount: amount.min(reserved.amount), ..reserved },
            Self::Nothing => Spend::default(),
        }
    }

    /// Returns what a call costs for which this price was reserved.
    pub fn cost(self, price: Micros) -> Micros {
        self.of(Spend { amount: price, calls: 1 }).amount
    }
}

/// A request to the ledger for a lease on one budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRequest {
    /// Number of the request, unique in this pool. A request that is sent again after a reconnect keeps its number.
    pub request: u64,
    /// UID of the budget.
    pub budget_uid: String,
    /// Money wanted.
    pub amount: Micros,
    /// Smallest amount of money that is useful.
    pub minimum_amount: Micros,
    /// Number of calls wanted.
    pub calls: u64,
    /// Smallest number of calls that is useful.
    pub minimum_calls: u64,
}

/// The ledger's answer to a lease request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseAnswer {
    /// Number of the request.
    pub request: u64,
    /// UID of the budget.
    pub budget_uid: String,
    /// The ledger's decision.
    pub outcome: LeaseOutcome,
}

/// The ledger's decision about a lease request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseOutcome {
    /// The lease is granted, and its amount is already charged to the budget.
    Granted(GrantedLease),
    /// The budget has less left than the requested minimum.
    Exhausted {
        /// End of the budget's period, in Unix seconds.
        period_end: i64,
    },
    /// The ledger could not be written.
    Unavailable,
    /// The tenant has no budget with this UID.
    UnknownBudget,
}

/// A granted lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantedLease {
    /// Opaque id of the lease.
    pub lease: String,
    /// Money that may be spent from the lease.
    pub amount: Micros,
    /// Number of calls that may be made on the lease.
    pub calls: u64,
    /// How long the lease may be spent, from now; at most to the end of the period.
    pub valid: Duration,
}

/// Totals spent from one lease so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpendReport {
    /// Id of the lease.
    pub lease: String,
    /// UID of the budget.
    pub budget_uid: String,
    /// Number of the report, increasing within the lease.
    pub sequence: u64,
    /// Money spent.
    pub amount: Micros,
    /// Calls made.
    pub calls: u64,
    /// Nothing more will be spent from the lease, so the ledger can refund the remainder.
    pub last: bool,
    /// Spend by principal and tool; sums to `amount` and `calls`.
    pub items: Vec<SpendItem>,
}

/// Spend of one principal on one tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpendItem {
    /// `<namespace>/<name>` of the principal.
    pub principal: String,
    /// Name of the server.
    pub server: String,
    /// Name of the tool.
    pub tool: String,
    /// Money spent.
    pub amount: Micros,
    /// Calls made.
    pub calls: u64,
}

#[cfg(test)]
mod tests;
