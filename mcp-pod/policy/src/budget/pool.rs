//! All leases of one gateway, and the reservations on them.

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::account::{Account, PendingRequest, need};
use super::lease::Lease;
use super::{
    BudgetBalance, BudgetStanding, BudgetState, Charge, GrantedLease, LeaseAnswer, LeaseOutcome, LeaseRequest,
    PricedCall, Reservation, ReservationPart, ReserveOutcome, Source, Spend, SpendReport,
};
use crate::denial::Denial;
use crate::model::{Budget, BudgetMode, TenantPolicy};
use crate::reason::Reason;
use crate::tick::Tick;
use crate::units::Micros;

/// The gateway's leases, by budget, and what was reserved and spent from them.
#[derive(Debug, Default)]
#[cfg_attr(feature = "model-checking", derive(Clone, PartialEq, Eq))]
pub struct LeasePool {
    /// Budgets of the policy in force, by UID.
    pub(super) accounts: HashMap<String, Account>,
    /// Leases by a local number that is never reused.
    pub(super) leases: BTreeMap<u64, Lease>,
    /// Last number that was assigned to a lease or a request.
    pub(super) last_number: u64,
    /// Whether a lease was requested since the requests were last taken.
    pub(super) requested: bool,
    pub(super) closed: bool,
}

impl LeasePool {
    /// Creates a pool without budgets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the budgets of a policy; leases of removed budgets are returned.
    pub fn apply(&mut self, now: Tick, policy: &TenantPolicy) {
        let mut known = std::mem::take(&mut self.accounts);
        for budget in &policy.budgets {
            let account = Account::new(budget, policy.currency.as_ref());
            let account = match known.remove(&budget.uid) {
                Some(known) => known.with_limits_of(account),
                None => account,
            };
            self.accounts.insert(budget.uid.clone(), account);
        }
        for number in known.into_values().flat_map(|account| account.leases) {
            if let Some(lease) = self.leases.get_mut(&number) {
                lease.drain();
            }
        }
        self.expire_leases(now);
    }

    /// Reserves the call from every budget that covers it, or from none. `wall` is the time in Unix seconds, used to
    /// tell the caller when a budget resets.
    pub fn reserve<'b>(
        &mut self,
        now: Tick,
        wall: i64,
        call: &PricedCall<'_>,
        budgets: impl Iterator<Item = &'b Budget> + Clone,
    ) -> ReserveOutcome {
        let limits_money = |budget: &Budget| budget.amount.is_some() && budget.mode == BudgetMode::Enforce;
        if call.price > Micros::ZERO && !budgets.clone().any(limits_money) {
            return ReserveOutcome::Denied(Denial::new(Reason::PriceUncovered));
        }
        let needs = budgets.map(|budget| (budget, need(budget, call.price))).filter(|(_, need)| !need.is_nothing());
        if self.closed && needs.clone().any(|(budget, _)| budget.mode == BudgetMode::Enforce) {
            return unavailable("the gateway is shutting down");
        }
        let mut plan = Vec::new();
        let mut complete = true;
        for (budget, need) in needs.clone() {
            let Some(account) = self.accounts.get(&budget.uid) else {
                if budget.mode == BudgetMode::Monitor {
                    continue;
                }
                return unavailable("the budget is not in the policy in force");
            };
            let fits = |number: &&u64| self.leases.get(*number).is_some_and(|lease| lease.fits(now, need));
            let found = account.leases.iter().position(|number| fits(&number));
            match found.and_then(|position| Some((position, account.leases.get(position)?))) {
                Some((position, number)) => plan.push((Source::Lease(*number), need, position > 0)),
                None if account.monitored => plan.push((Source::Unleased(budget.uid.as_str().into()), need, false)),
                None => match account.denial(now, wall, need) {
                    Some(denial) => return ReserveOutcome::Denied(denial),
                    None => complete = false,
                },
            }
        }
        if !complete {
            for (budget, need) in needs {
                self.request_lease(now, &budget.uid, need);
            }
            return ReserveOutcome::NeedLease;
        }
        let mut parts = Vec::with_capacity(plan.len());
        for (source, spend, is_next) in plan {
            let item = match &source {
                Source::Lease(number) => self.reserve_from_lease(now, *number, call, spend, is_next),
                Source::Unleased(uid) => {
                    self.request_lease(now, uid, spend);
                    self.accounts.get_mut(&**uid).map(|account| account.unleased.reserve(call, spend))
                }
            };
            parts.extend(item.map(|item| ReservationPart { source, item, spend }));
        }
        ReserveOutcome::Reserved(Reservation { parts })
    }

    /// Reserves an amount from a lease. Requests the next one if this one is running out, and returns those before it, which
    /// are too small, if it is itself the next one.
    fn reserve_from_lease(
        &mut self,
        now: Tick,
        number: u64,
        call: &PricedCall<'_>,
        need: Spend,
        is_next: bool,
    ) -> Option<usize> {
        let lease = self.leases.get_mut(&number)?;
        let item = lease.reserve(now, call, need);
        if !is_next && !lease.is_running_out(now) {
            return Some(item);
        }
        let uid = lease.budget_uid();
        let account = self.accounts.get_mut(uid)?;
        if !self.closed
            && account.may_request_ahead(now)
            && account.request_lease(self.last_number + 1, uid, need, true)
        {
            self.last_number += 1;
            self.requested = true;
        }
        for number in account.take_leases_before(number) {
            if let Some(lease) = self.leases.get_mut(&number) {
                lease.drain();
            }
        }
        Some(item)
    }

    /// Requests a lease if no open lease covers the need, and none was refused recently. Leases that are too small are
    /// returned first, so that their remainders can be leased again together with the rest of the budget.
    fn request_lease(&mut self, now: Tick, budget_uid: &str, need: Spend) {
        let Some(account) = self.accounts.get_mut(budget_uid).filter(|account| !account.is_refused(now, need)) else {
            return;
        };
        if self.closed {
            return;
        }
        if account.leases.iter().any(|number| self.leases.get(number).is_some_and(|lease| lease.fits(now, need))) {
            return;
        }
        if account.request_lease(self.last_number + 1, budget_uid, need, false) {
            self.last_number += 1;
            self.requested = true;
            for number in std::mem::take(&mut account.leases) {
                if let Some(lease) = self.leases.get_mut(&number) {
                    lease.drain();
                }
            }
        }
    }

    /// Returns what is known about the budget with that UID. Says nothing about who spent what.
    pub fn standing(&self, now: Tick, wall: i64, budget_uid: &str) -> BudgetStanding {
        let Some(account) = self.accounts.get(budget_uid) else {
            return BudgetStanding { state: BudgetState::Unknown, remaining: None };
        };
        let leases = account.leases.iter().filter_map(|number| self.leases.get(number));
        let held = leases.fold(Spend::default(), |sum, lease| sum.plus(lease.left(now)));
        let state = match held.calls {
            _ if account.is_exhausted(wall) => BudgetState::Exhausted,
            0 => BudgetState::Unknown,
            _ => BudgetState::Available,
        };
        BudgetStanding { state, remaining: account.remaining(now, wall, held) }
    }

    /// Takes note of what the ledger says about a budget. Changes nothing but [`Self::standing`].
    pub fn note_balance(&mut self, now: Tick, wall: i64, balance: BudgetBalance) {
        if let Some(account) = self.accounts.get_mut(&balance.budget_uid) {
            account.set_balance(now, wall, balance);
        }
    }

    /// Settles a reservation.
    pub fn settle(&mut self, now: Tick, reservation: Reservation, charge: Charge) {
        for ReservationPart { source, item, spend } in reservation.parts {
            match source {
                Source::Lease(number) => {
                    if let Some(lease) = self.leases.get_mut(&number) {
                        lease.settle(now, item, spend, charge);
                    }
                }
                Source::Unleased(uid) => {
                    if let Some(account) = self.accounts.get_mut(&*uid) {
                        account.unleased.settle(item, spend, charge.of(spend));
                    }
                }
            }
        }
    }

    /// Returns whether there is a new request to send.
    pub const fn has_new_request(&self) -> bool {
        self.requested
    }

    /// Returns the lease requests to send now.
    pub fn take_lease_requests(&mut self, _: Tick) -> Vec<LeaseRequest> {
        self.requested = false;
        let unsent =
            self.accounts.values_mut().filter_map(|account| account.pending.as_mut()).filter(|pending| !pending.sent);
        let mut requests: Vec<LeaseRequest> = unsent
            .map(|pending| {
                pending.sent = true;
                pending.request.clone()
            })
            .collect();
        requests.sort_unstable_by_key(|request| request.request);
        requests
    }

    /// Applies an answer of the ledger. Calls that wait for it should reserve again.
    pub fn answer(&mut self, now: Tick, wall: i64, answer: LeaseAnswer) {
        let LeaseAnswer { request, budget_uid, outcome } = answer;
        let account = self.accounts.get_mut(&budget_uid);
        let request = account.and_then(|account| {
            if matches!(outcome, LeaseOutcome::Granted(_)) {
                account.number_is_granted(request);
            }
            let pending = account.take_pending(request)?;
            if outcome == LeaseOutcome::Unavailable {
                account.add_unanswered(pending.request.request);
            }
            Some(pending)
        });
        match outcome {
            LeaseOutcome::Granted(grant) => self.granted(now, wall, budget_uid, grant, request),
            LeaseOutcome::Exhausted { period_end } => self.refused(now, wall, request, Some(period_end)),
            LeaseOutcome::Unavailable | LeaseOutcome::UnknownBudget => self.refused(now, wall, request, None),
        }
    }

    /// Adds a granted lease. One that was not requested, or is no longer useful, is returned at once, because it is
    /// already charged to its budget.
    fn granted(
        &mut self,
        now: Tick,
        wall: i64,
        budget_uid: String,
        grant: GrantedLease,
        request: Option<PendingRequest>,
    ) {
        if self.leases.values().any(|lease| lease.id() == grant.lease) {
            return;
        }
        let size = Spend { amount: grant.amount, calls: grant.calls };
        let mut lease = Lease::new(now, budget_uid, grant);
        self.last_number += 1;
        let useful = request.as_ref().is_some_and(|request| size.covers(minimum(&request.request)));
        match self.accounts.get_mut(lease.budget_uid()) {
            Some(account) if useful && !self.closed => account.add_lease(self.last_number),
            _ => {
                lease.drain();
                self.refused(now, wall, request, None);
            }
        }
        self.leases.insert(self.last_number, lease);
    }

    fn refused(&mut self, now: Tick, wall: i64, request: Option<PendingRequest>, period_end: Option<i64>) {
        let Some(PendingRequest { request, sent: _, ahead }) = request else { return };
        match self.accounts.get_mut(&request.budget_uid) {
            Some(account) if ahead => account.nothing_ahead(now),
            Some(account) => account.add_refusal(now, wall, minimum(&request), period_end),
            None => {}
        }
    }

    /// Ends leases that are near their deadline, returns idle ones, and adds to leases what monitored budgets spent without
    /// one. Call it about once a second.
    pub fn expire_leases(&mut self, now: Tick) {
        let mut uncovered = Vec::new();
        for (uid, account) in &mut self.accounts {
            uncovered.extend(account.lease_spent(now, &mut self.leases).map(|need| (uid.clone(), need)));
        }
        for (uid, need) in uncovered {
            self.request_lease(now, &uid, need);
        }
        for lease in self.leases.values_mut() {
            lease.expire_leases(now);
        }
    }

    /// Returns the spend reports to send now, before any lease request.
    pub fn take_reports(&mut self, now: Tick) -> Vec<SpendReport> {
        self.leases.values_mut().filter_map(|lease| lease.report(now)).collect()
    }

    /// Records that the ledger has stored this report.
    pub fn acknowledge_report(&mut self, lease: &str, sequence: u64) {
        let found = self.leases.iter_mut().find(|(_, known)| known.id() == lease);
        let Some((number, lease)) = found else { return };
        if lease.acknowledge_report(sequence) {
            let number = *number;
            if let Some(account) = self.accounts.get_mut(lease.budget_uid()) {
                account.leases.retain(|known| *known != number);
            }
            self.leases.remove(&number);
        }
    }

    /// Returns a lease that the ledger recalls.
    pub fn return_lease(&mut self, _: Tick, lease: &str) {
        if let Some(lease) = self.leases.values_mut().find(|known| known.id() == lease) {
            lease.drain();
        }
    }

    /// Handles a new connection to the ledger: unanswered requests and reports are sent again, unchanged.
    pub fn resend_unanswered(&mut self) {
        for pending in self.accounts.values_mut().filter_map(|account| account.pending.as_mut()) {
            pending.sent = false;
        }
        for lease in self.leases.values_mut() {
            lease.resend_unanswered();
        }
    }

    /// Returns whether [`Self::close`] was called.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns all leases; every later reservation is refused.
    pub fn close(&mut self, now: Tick) {
        self.closed = true;
        for lease in self.leases.values_mut() {
            lease.drain();
        }
        self.expire_leases(now);
    }

    /// Returns whether no lease is left: the ledger has the last report of each.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    #[cfg(test)]
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }
}

/// Returns the smallest lease that is useful for a request.
const fn minimum(request: &LeaseRequest) -> Spend {
    Spend { amount: request.minimum_amount, calls: request.minimum_calls }
}

fn unavailable(limit: &str) -> ReserveOutcome {
    ReserveOutcome::Denied(Denial::new(Reason::BudgetUnavailable).with_limit(limit))
}
