//! The seam between the call pipeline and whatever holds the money: leases in a gateway, a fake in a test.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;
use mcp_fleet_policy::model::{Budget, Principal, Server, Tool};
use mcp_fleet_policy::reason::Reason;

/// Who calls what, for those who account for it.
#[derive(Clone, Copy, Debug)]
pub struct CallFacts<'a> {
    /// The caller.
    pub principal: &'a Principal,
    /// The server it calls.
    pub server: &'a Server,
    /// The tool it calls.
    pub tool: &'a Tool,
    /// Every budget of the policy whose selector covers the call: each must have room.
    pub budgets: &'a [Budget],
}

/// Holds budgets and takes calls out of them.
pub trait Budgets: Debug + Send + Sync {
    /// Takes the tool's price and one call out of every budget that covers the call, or out of none.
    ///
    /// Only asked when at least one budget covers the call.
    fn reserve(&self, call: &CallFacts<'_>) -> Attempt;
}

/// The answer to [`Budgets::reserve`].
pub enum Attempt {
    /// Answered from leases at hand, without waiting.
    Ready(Result<Box<dyn Reservation>, BudgetRefusal>),
    /// A lease has to be asked for. The future ends in bounded time, with `budget_unavailable` if nothing else.
    Wait(BoxFuture<'static, Result<Box<dyn Reservation>, BudgetRefusal>>),
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

/// Why nothing could be reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRefusal {
    /// [`Reason::BudgetExhausted`] or [`Reason::BudgetUnavailable`].
    pub reason: Reason,
    /// The name of the budget.
    pub budget: String,
    /// Its limit as a user would say it, such as `5.00 USD a day`; empty if that is not known.
    pub limit: String,
    /// How long to wait before there may be room.
    pub retry_after: Option<Duration>,
    /// The Unix second at which the period ends.
    pub resets_at: Option<i64>,
}
