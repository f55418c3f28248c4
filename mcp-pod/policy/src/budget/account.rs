//! One budget as the gateway sees it: its limits, its leases, the pending lease request and the last refusal.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::items::Items;
use super::lease::Lease;
use super::{BudgetBalance, LeaseRequest, Remaining, Spend};
use crate::denial::Denial;
use crate::model::{Budget, BudgetMode};
use crate::reason::Reason;
use crate::tick::Tick;
use crate::units::{Currency, Micros};

/// A lease request asks for at least this many calls at the price of the current one, as far as the budget allows.
const LEASE_CALLS: u64 = 64;
/// A lease request asks for at least the budget divided by this.
const LEASES_PER_BUDGET: u64 = 8;
/// Calls requested where the policy sets no limit. If the ledger has a newer policy with a limit, it grants less.
const UNLIMITED_CALLS: u64 = 1_000_000_000_000;
/// How long no new lease is requested after a refusal; doubles with each consecutive refusal.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// A budget of the policy in force.
#[derive(Debug)]
#[cfg_attr(feature = "model-checking", derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct Account {
    name: String,
    amount: Option<Micros>,
    calls: Option<u64>,
    /// The limit in words, such as `5 USD a day`.
    limit: String,
    /// End of the period that a person topped up, in Unix seconds, and the limit of that period in words.
    topped_up: Option<(i64, String)>,
    /// Numbers of the budget's leases that may still be open.
    pub(super) leases: Vec<u64>,
    pub(super) pending: Option<PendingRequest>,
    /// Whether the budget only counts. Then calls do not wait for leases.
    pub(super) monitored: bool,
    /// Calls of a monitored budget that no lease covers yet.
    pub(super) unleased: Items,
    /// Number of a request that the ledger could not answer: it may have charged the lease nevertheless. The next request
    /// has the same number, and so gets that lease instead of a second one.
    unanswered: Option<u64>,
    refusal: Option<Refusal>,
    consecutive_refusals: u32,
    /// The newest balance, and when it arrived.
    balance: Option<(Tick, BudgetBalance)>,
    /// Until when no lease is requested ahead of need, because the last such request got none.
    nothing_ahead_until: Tick,
}

/// A lease request that has not been answered.
#[derive(Debug)]
#[cfg_attr(feature = "model-checking", derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct PendingRequest {
    pub(super) request: LeaseRequest,
    pub(super) sent: bool,
    /// Whether the lease is requested before a call needs it.
    pub(super) ahead: bool,
}

/// The last refusal by the ledger. Remembered for a while, so that a burst of calls does not cause a burst of requests.
#[derive(Debug)]
#[cfg_attr(feature = "model-checking", derive(Clone, PartialEq, Eq, Hash))]
struct Refusal {
    until: Tick,
    /// Minimum that was refused; a smaller need may still be granted.
    need: Spend,
    /// End of the period if the budget is exhausted; `None` if the ledger was unavailable.
    period_end: Option<i64>,
}

impl Account {
    pub(super) fn new(budget: &Budget, currency: Option<&Currency>) -> Self {
        let Budget { name, uid: _, selector: _, period, amount, calls, mode, top_up } = budget;
        let monitored = *mode == BudgetMode::Monitor;
        let in_words = |(amount, calls): (Option<Micros>, Option<u64>)| {
            let money = amount.map(|amount| format!("{amount} {}", currency.map_or("", Currency::as_str)));
            let calls = calls.map(|calls| format!("{calls} calls"));
            money.into_iter().chain(calls).collect::<Vec<_>>().join(" and ")
        };
        let article = if period.noun() == "hour" { "an" } else { "a" };
        // For the sizes of leases, the largest limit of any period is good enough: the ledger grants less where less is left.
        let most = top_up.map_or((*amount, *calls), |top_up| budget.limits_in(top_up.start));
        let topped_up = top_up.and_then(|top_up| {
            let (_, end) = period.bounds(Timestamp::from_second(top_up.start).ok()?);
            Some((end.as_second(), format!("{} until the reset, with what was added", in_words(most))))
        });
        Self {
            name: name.clone(),
            // The ledger does not limit the leases of a monitored budget.
            amount: most.0.filter(|_| !monitored),
            calls: most.1.filter(|_| !monitored),
            limit: format!("{} {article} {}", in_words((*amount, *calls)), period.noun()),
            topped_up,
            leases: Vec::new(),
            pending: None,
            monitored,
            unleased: Items::default(),
            unanswered: None,
            refusal: None,
            consecutive_refusals: 0,
            balance: None,
            nothing_ahead_until: Tick::ZERO,
        }
    }

    /// Takes over the limits of a new policy. Leases and the pending request stay; the last refusal is dropped, because
    /// the new limits may leave room, and so is the balance if they differ.
    pub(super) fn with_limits_of(self, newer: Self) -> Self {
        let Self { leases, pending, unanswered, unleased, .. } = self;
        let balance = self.balance.filter(|_| (&self.limit, &self.topped_up) == (&newer.limit, &newer.topped_up));
        Self { leases, pending, unleased, unanswered, balance, ..newer }
    }

    /// Remembers a balance, unless a newer one of this period has overtaken it.
    pub(super) fn set_balance(&mut self, now: Tick, wall: i64, balance: BudgetBalance) {
        let overtaken = |known: &BudgetBalance| wall < known.period_end && known.as_of > balance.as_of;
        if !self.balance.as_ref().is_some_and(|(_, known)| overtaken(known)) {
            self.balance = Some((now, balance));
        }
    }

    /// Returns what is left in this period: what the ledger has said, and `held`, which the open leases cover.
    pub(super) fn remaining(&self, now: Tick, wall: i64, held: Spend) -> Option<Remaining> {
        let (arrived, balance) = self.balance.as_ref().filter(|(_, balance)| wall < balance.period_end)?;
        // The leases of a monitored budget have no limit.
        let held = if self.monitored { Spend::default() } else { held };
        Some(Remaining {
            amount: balance.left_amount.map(|left| left.saturating_add(held.amount)),
            calls: balance.left_calls.map(|left| left.saturating_add(held.calls)),
            spent_amount: balance.spent_amount,
            spent_calls: balance.spent_calls,
            age: now.since(*arrived),
        })
    }

    /// Returns the denial for this need if the ledger recently refused the same or less.
    pub(super) fn denial(&self, now: Tick, wall: i64, need: Spend) -> Option<Denial> {
        let refusal = self.recent_refusal(now, need)?;
        Some(match refusal.period_end {
            Some(end) => Denial {
                resets_at: Some(end),
                retry_after: Some(Duration::from_secs(u64::try_from(end.saturating_sub(wall)).unwrap_or(0))),
                ..Denial::new(Reason::BudgetExhausted).with_limit(format!(
                    "the budget `{}` allows {}",
                    self.name,
                    self.limit_until(end)
                ))
            },
            None => Denial {
                retry_after: Some(refusal.until.since(now)),
                ..Denial::new(Reason::BudgetUnavailable)
                    .with_limit(format!("the ledger of the budget `{}` cannot be reached", self.name))
            },
        })
    }

    /// Returns the limit of the period with this end, in words.
    fn limit_until(&self, end: i64) -> &str {
        self.topped_up.as_ref().filter(|(until, _)| *until == end).map_or(&self.limit, |(_, limit)| limit)
    }

    /// Returns whether the ledger recently refused this need or less.
    pub(super) fn is_refused(&self, now: Tick, need: Spend) -> bool {
        self.recent_refusal(now, need).is_some()
    }

    /// Returns the refusal that still holds for this need. The need of a monitored budget makes no difference, because it
    /// has no limit.
    fn recent_refusal(&self, now: Tick, need: Spend) -> Option<&Refusal> {
        let holds = |refusal: &&Refusal| now < refusal.until && (self.monitored || need.covers(refusal.need));
        self.refusal.as_ref().filter(holds)
    }

    /// Moves what is spent without a lease to a lease that covers it. Returns what there is to move if none does.
    ///
    /// What was spent before the budget began to refuse calls is dropped: it could exceed a lease, which is limited then.
    pub(super) fn lease_spent(&mut self, now: Tick, leases: &mut BTreeMap<u64, Lease>) -> Option<Spend> {
        let spent = self.unleased.spent();
        if spent.is_nothing() {
            return None;
        }
        let covers = |number: &&u64| leases.get(*number).is_some_and(|lease| lease.fits(now, spent));
        let lease = self.leases.iter().find(covers).copied().and_then(|number| leases.get_mut(&number));
        match lease {
            _ if !self.monitored => drop(self.unleased.take_spent()),
            Some(lease) => self.unleased.take_spent().iter().for_each(|item| lease.add_spent(now, item)),
            None => return Some(spent),
        }
        None
    }

    /// Returns whether the ledger refused the last request because the budget is exhausted, in the period of this time.
    pub(super) fn is_exhausted(&self, wall: i64) -> bool {
        self.refusal.as_ref().and_then(|refusal| refusal.period_end).is_some_and(|end| wall < end)
    }

    /// Queues a request for a lease that covers this need. Returns whether the request is new: there is at most one
    /// pending request per budget.
    pub(super) fn request_lease(&mut self, number: u64, budget_uid: &str, need: Spend, ahead: bool) -> bool {
        if self.pending.is_some() {
            return false;
        }
        let size = |minimum: u64, total: Option<u64>, unlimited: u64| match total {
            Some(total) if minimum > 0 => {
                minimum.saturating_mul(LEASE_CALLS).max(total / LEASES_PER_BUDGET).min(total).max(minimum)
            }
            Some(_) => 0,
            None => unlimited,
        };
        let request = LeaseRequest {
            request: self.unanswered.take().unwrap_or(number),
            budget_uid: budget_uid.to_owned(),
            amount: Micros::new(size(need.amount.get(), self.amount.map(Micros::get), Micros::MAX.get())),
            minimum_amount: need.amount,
            calls: size(need.calls, self.calls, UNLIMITED_CALLS),
            minimum_calls: need.calls,
        };
        self.pending = Some(PendingRequest { request, sent: false, ahead });
        true
    }

    /// Handles the arrival of a lease for the request with this number. The number must not be used again: the ledger could
    /// repeat the lease after this pool has returned it.
    pub(super) fn number_is_granted(&mut self, number: u64) {
        self.unanswered.take_if(|unanswered| *unanswered == number);
    }

    /// Removes and returns the pending request if it has this number.
    pub(super) fn take_pending(&mut self, number: u64) -> Option<PendingRequest> {
        self.pending.take_if(|pending| pending.request.request == number)
    }

    /// Returns whether a lease may be requested before a call needs it: there is no other to be used after the one in use,
    /// and none was refused recently.
    pub(super) fn may_request_ahead(&self, now: Tick) -> bool {
        self.leases.len() == 1 && self.pending.is_none() && self.refusal.is_none() && now >= self.nothing_ahead_until
    }

    /// Remembers that a request ahead of need got no lease. No call is refused because of it: what the lease in use still
    /// has may be enough, together with what is left of the budget.
    pub(super) fn nothing_ahead(&mut self, now: Tick) {
        self.nothing_ahead_until = now.plus(MAX_BACKOFF);
    }

    /// Removes and returns the leases before this one.
    pub(super) fn take_leases_before(&mut self, lease: u64) -> Vec<u64> {
        let position = self.leases.iter().position(|known| *known == lease).unwrap_or(0);
        self.leases.drain(..position).collect()
    }

    /// Remembers a request that the ledger could not answer.
    pub(super) const fn add_unanswered(&mut self, number: u64) {
        self.unanswered = Some(number);
    }

    /// Adds a granted lease and clears the last refusal.
    pub(super) fn add_lease(&mut self, lease: u64) {
        self.leases.push(lease);
        self.refusal = None;
        self.consecutive_refusals = 0;
    }

    /// Remembers a refusal for the backoff time, or until the period ends if that is sooner.
    pub(super) fn add_refusal(&mut self, now: Tick, wall: i64, need: Spend, period_end: Option<i64>) {
        let mut backoff = MIN_BACKOFF.saturating_mul(1 << self.consecutive_refusals.min(8)).min(MAX_BACKOFF);
        self.consecutive_refusals = self.consecutive_refusals.saturating_add(1);
        if let Some(end) = period_end {
            backoff = backoff.min(Duration::from_secs(u64::try_from(end.saturating_sub(wall)).unwrap_or(0)));
        }
        self.refusal = Some(Refusal { until: now.plus(backoff), need, period_end });
    }
}

/// Returns what a call needs from a budget: nothing if the budget does not limit it, so that free calls need no
/// ledger; otherwise its price and one call, so that reports carry both.
pub(super) fn need(budget: &Budget, price: Micros) -> Spend {
    let limited = budget.calls.is_some() || (budget.amount.is_some() && price > Micros::ZERO);
    if limited { Spend { amount: price, calls: 1 } } else { Spend::default() }
}
