//! One budget as the gateway sees it: its limits, its leases, what was asked for, and what was refused last.

use std::time::Duration;

use super::{LeaseRequest, Spend};
use crate::denial::Denial;
use crate::model::Budget;
use crate::reason::Reason;
use crate::tick::Tick;
use crate::units::{Currency, Micros};

/// A lease is good for so many calls, and for one part of so many of the budget, whichever is more.
const CALLS: u64 = 64;
const PART: u64 = 8;
/// What is asked for where the policy in force sets no limit: if the ledger knows of one, the lease shows it.
const UNLIMITED_CALLS: u64 = 1_000_000_000_000;
/// How long a refusal is remembered: doubled with each in a row, up to the most.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(10);

/// A budget of the policy in force.
#[derive(Debug)]
pub(super) struct Account {
    name: String,
    amount: Option<Micros>,
    calls: Option<u64>,
    /// For a person, such as `5 USD a day`.
    limit: String,
    /// Numbers of its leases that may still be open.
    pub(super) leases: Vec<u64>,
    pub(super) asked: Option<Asked>,
    refused: Option<Refused>,
    /// Refusals in a row.
    refusals: u32,
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: LeaseRequest,
    pub(super) sent: bool,
}

/// What the ledger did not give, so that a storm of calls is not a storm of requests.
#[derive(Debug)]
struct Refused {
    until: Tick,
    /// What could not be had; less than that could be.
    need: Spend,
    /// Absent: the ledger could not say.
    period_end: Option<i64>,
}

impl Account {
    pub(super) fn new(budget: &Budget, currency: Option<&Currency>) -> Self {
        let Budget { name, uid: _, selector: _, period, amount, calls } = budget;
        let money = amount.map(|amount| format!("{amount} {}", currency.map_or("", Currency::as_str)));
        let calls_text = calls.map(|calls| format!("{calls} calls"));
        let parts: Vec<String> = money.into_iter().chain(calls_text).collect();
        let article = if period.noun() == "hour" { "an" } else { "a" };
        Self {
            name: name.clone(),
            amount: *amount,
            calls: *calls,
            limit: format!("{} {article} {}", parts.join(" and "), period.noun()),
            leases: Vec::new(),
            asked: None,
            refused: None,
            refusals: 0,
        }
    }

    /// The limits of a new policy; leases and requests stay, a refusal is forgotten because there may be room now.
    pub(super) fn renew(self, newer: Self) -> Self {
        Self { leases: self.leases, asked: self.asked, ..newer }
    }

    /// Whether there is no room for this need, as far as is known.
    pub(super) fn refusal(&self, now: Tick, wall: i64, need: Spend) -> Option<Denial> {
        let refused = self.refused.as_ref().filter(|refused| now < refused.until && need.covers(refused.need))?;
        Some(match refused.period_end {
            Some(end) => Denial {
                resets_at: Some(end),
                retry_after: Some(Duration::from_secs(u64::try_from(end.saturating_sub(wall)).unwrap_or(0))),
                ..Denial::new(Reason::BudgetExhausted)
                    .with_limit(format!("the budget `{}` allows {}", self.name, self.limit))
            },
            None => Denial {
                retry_after: Some(refused.until.since(now)),
                ..Denial::new(Reason::BudgetUnavailable)
                    .with_limit(format!("the ledger of the budget `{}` cannot be reached", self.name))
            },
        })
    }

    /// Asks for a lease that such a call fits in, unless one is asked for already; true if that is new.
    pub(super) fn ask(&mut self, number: u64, budget_uid: &str, need: Spend) -> bool {
        if self.asked.is_some() {
            return false;
        }
        let size = |least: u64, total: Option<u64>, all: u64| match total {
            Some(total) if least > 0 => least.saturating_mul(CALLS).max(total / PART).min(total).max(least),
            Some(_) => 0,
            None => all,
        };
        let request = LeaseRequest {
            request: number,
            budget_uid: budget_uid.to_owned(),
            amount: Micros::new(size(need.amount.get(), self.amount.map(Micros::get), Micros::MAX.get())),
            minimum_amount: need.amount,
            calls: size(need.calls, self.calls, UNLIMITED_CALLS),
            minimum_calls: need.calls,
        };
        self.asked = Some(Asked { request, sent: false });
        true
    }

    /// The request of that number has been answered.
    pub(super) fn answered(&mut self, number: u64) -> Option<LeaseRequest> {
        self.asked.take_if(|asked| asked.request.request == number).map(|asked| asked.request)
    }

    pub(super) fn granted(&mut self, lease: u64) {
        self.leases.push(lease);
        self.refused = None;
        self.refusals = 0;
    }

    /// Remembers that this could not be had, at most to the end of the period.
    pub(super) fn refuse(&mut self, now: Tick, wall: i64, need: Spend, period_end: Option<i64>) {
        let mut time = FIRST.saturating_mul(1 << self.refusals.min(8)).min(MOST);
        self.refusals = self.refusals.saturating_add(1);
        if let Some(end) = period_end {
            time = time.min(Duration::from_secs(u64::try_from(end.saturating_sub(wall)).unwrap_or(0)));
        }
        self.refused = Some(Refused { until: now.plus(time), need, period_end });
    }
}

/// What a call takes out of a budget: nothing where it meets no limit, so that free calls need no ledger; else money
/// and a call, so that reports tell both.
pub(super) fn need(budget: &Budget, price: Micros) -> Spend {
    let counts = budget.calls.is_some() || (budget.amount.is_some() && price > Micros::ZERO);
    if counts { Spend { amount: price, calls: 1 } } else { Spend::default() }
}
