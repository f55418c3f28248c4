//! The seam between the call pipeline and whatever holds the money: leases in a gateway, a fake in a test.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::model::Budget;
use mcp_fleet_policy::units::Micros;

/// Who calls what and which budgets cover it: made once for each tool a principal calls under one policy, so that a
/// call that has to wait for a lease can keep it.
#[derive(Clone, Debug)]
pub struct CallFacts {
    /// The caller, `<namespace>/<name>`.
    pub principal: String,
    /// The name of the server.
    pub server: String,
    /// The name of the tool.
    pub tool: String,
    /// What a call costs.
    pub price: Micros,
    /// Every budget of the policy that covers the call; each must have room.
    pub budgets: Vec<Budget>,
}

/// Holds budgets and takes calls out of them.
pub trait Budgets: Debug + Send + Sync {
    /// Takes the price and one call out of every budget that covers the call, or out of none.
    ///
    /// Asked on every call, also for free tools that no budget covers.
    fn reserve(&self, call: &Arc<CallFacts>) -> Attempt;
}

/// The answer to [`Budgets::reserve`].
pub enum Attempt {
    /// Answered from leases at hand, without waiting.
    Ready(Result<Box<dyn Reservation>, Denial>),
    /// A lease has to be asked for. The future ends in bounded time, with `budget_unavailable` if nothing else.
    Wait(BoxFuture<'static, Result<Box<dyn Reservation>, Denial>>),
}

impl Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready(answer) => f.debug_tuple("Ready").field(answer).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

/// What was taken out of the budgets for one call. Dropping it keeps the whole reserve spent: a call that nobody
/// can say the end of has been paid.
pub trait Reservation: Debug + Send + Sync {
    /// Ends the reservation.
    fn settle(self: Box<Self>, charge: Charge);
}

/// What a call cost in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// The reserve: the server saw the call, or may have.
    Full,
    /// Nothing: the server certainly never saw it.
    Nothing,
}
