//! The book of all leases of one gateway.

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::account::{Account, need};
use super::lease::Lease;
use super::{
    Call, Charge, Grant, LeaseAnswer, LeaseOutcome, LeaseRequest, Outcome, Part, Reservation, Spend, SpendReport,
};
use crate::denial::Denial;
use crate::model::{Budget, TenantPolicy};
use crate::reason::Reason;
use crate::tick::Tick;
use crate::units::Micros;

/// Leases, and what was taken out of them.
#[derive(Debug, Default)]
pub struct Book {
    /// The budgets of the policy in force, by UID.
    accounts: HashMap<String, Account>,
    /// By a number of our own, which is never used again.
    leases: BTreeMap<u64, Lease>,
    /// The last number that was given to a lease or a request.
    number: u64,
    closed: bool,
}

impl Book {
    /// Without budgets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the budgets of a policy; leases of budgets that are gone are given back.
    pub fn apply(&mut self, now: Tick, policy: &TenantPolicy) {
        let mut known = std::mem::take(&mut self.accounts);
        for budget in &policy.budgets {
            let account = Account::new(budget, policy.currency.as_ref());
            let account = match known.remove(&budget.uid) {
                Some(known) => known.renew(account),
                None => account,
            };
            self.accounts.insert(budget.uid.clone(), account);
        }
        for gone in known.into_values().flat_map(|account| account.leases) {
            if let Some(lease) = self.leases.get_mut(&gone) {
                lease.drain();
            }
        }
        self.tick(now);
    }

    /// Takes the call out of every budget that covers it, or out of none. `wall` is Unix seconds, for telling when a
    /// budget starts anew.
    pub fn reserve<'b>(
        &mut self,
        now: Tick,
        wall: i64,
        call: &Call<'_>,
        budgets: impl Iterator<Item = &'b Budget> + Clone,
    ) -> Outcome {
        if call.price > Micros::ZERO && !budgets.clone().any(|budget| budget.amount.is_some()) {
            return Outcome::Refused(Denial::new(Reason::PriceUncovered));
        }
        let needs = budgets.map(|budget| (budget, need(budget, call.price))).filter(|(_, need)| !need.is_nothing());
        if self.closed && needs.clone().next().is_some() {
            return unavailable("the gateway is about to end");
        }
        let mut plan = Vec::new();
        let mut complete = true;
        for (budget, need) in needs.clone() {
            let Some(account) = self.accounts.get(&budget.uid) else {
                return unavailable("the budget is not in the policy in force");
            };
            let fits = |number: &&u64| self.leases.get(*number).is_some_and(|lease| lease.fits(now, need));
            match account.leases.iter().find(fits) {
                Some(number) => plan.push((*number, need)),
                None => match account.refusal(now, wall, need) {
                    Some(denial) => return Outcome::Refused(denial),
                    None => complete = false,
                },
            }
        }
        if !complete {
            for (budget, need) in needs {
                self.ask(now, &budget.uid, need);
            }
            return Outcome::NeedLease;
        }
        let mut parts = Vec::with_capacity(plan.len());
        for (number, spend) in plan {
            if let Some(lease) = self.leases.get_mut(&number) {
                parts.push(Part { lease: number, item: lease.reserve(now, call, spend), spend });
            }
        }
        Outcome::Reserved(Reservation { parts })
    }

    /// Asks for a lease if none fits. Those that do not fit are given back first, so that their rest can be leased
    /// again together with what is left.
    fn ask(&mut self, now: Tick, budget_uid: &str, need: Spend) {
        let Some(account) = self.accounts.get_mut(budget_uid) else { return };
        if account.leases.iter().any(|number| self.leases.get(number).is_some_and(|lease| lease.fits(now, need))) {
            return;
        }
        if account.ask(self.number + 1, budget_uid, need) {
            self.number += 1;
            for number in std::mem::take(&mut account.leases) {
                if let Some(lease) = self.leases.get_mut(&number) {
                    lease.drain();
                }
            }
        }
    }

    /// Ends a reservation.
    pub fn settle(&mut self, now: Tick, reservation: Reservation, charge: Charge) {
        for Part { lease, item, spend } in reservation.parts {
            if let Some(lease) = self.leases.get_mut(&lease) {
                lease.settle(now, item, spend, charge);
            }
        }
    }

    /// The requests that are to be sent now.
    pub fn take_requests(&mut self, _: Tick) -> Vec<LeaseRequest> {
        let unsent =
            self.accounts.values_mut().filter_map(|account| account.asked.as_mut()).filter(|asked| !asked.sent);
        let mut requests: Vec<LeaseRequest> = unsent
            .map(|asked| {
                asked.sent = true;
                asked.request.clone()
            })
            .collect();
        requests.sort_unstable_by_key(|request| request.request);
        requests
    }

    /// Takes an answer of the ledger. Who waits for it should reserve again.
    pub fn answer(&mut self, now: Tick, wall: i64, answer: LeaseAnswer) {
        let LeaseAnswer { request, budget_uid, outcome } = answer;
        let account = self.accounts.get_mut(&budget_uid);
        let asked = account.and_then(|account| account.answered(request));
        match outcome {
            LeaseOutcome::Granted(grant) => self.granted(now, wall, budget_uid, grant, asked),
            LeaseOutcome::Exhausted { period_end } => self.refused(now, wall, asked, Some(period_end)),
            LeaseOutcome::Unavailable | LeaseOutcome::UnknownBudget => self.refused(now, wall, asked, None),
        }
    }

    /// A lease that nobody asked for, or not any more, is given back at once: it has been charged.
    fn granted(&mut self, now: Tick, wall: i64, budget_uid: String, grant: Grant, asked: Option<LeaseRequest>) {
        if self.leases.values().any(|lease| lease.id() == grant.lease) {
            return;
        }
        let size = Spend { amount: grant.amount, calls: grant.calls };
        let mut lease = Lease::new(now, budget_uid, grant);
        self.number += 1;
        let useful = asked.as_ref().is_some_and(|asked| size.covers(least(asked)));
        match self.accounts.get_mut(lease.budget_uid()) {
            Some(account) if useful && !self.closed => account.granted(self.number),
            _ => {
                lease.drain();
                self.refused(now, wall, asked, None);
            }
        }
        self.leases.insert(self.number, lease);
    }

    fn refused(&mut self, now: Tick, wall: i64, asked: Option<LeaseRequest>, period_end: Option<i64>) {
        let Some(asked) = asked else { return };
        if let Some(account) = self.accounts.get_mut(&asked.budget_uid) {
            account.refuse(now, wall, least(&asked), period_end);
        }
    }

    /// Lets time pass: leases near their deadline end, and those that nobody uses are given back. About once a second.
    pub fn tick(&mut self, now: Tick) {
        for lease in self.leases.values_mut() {
            lease.tick(now);
        }
    }

    /// The reports that are to be sent now, before any request.
    pub fn take_reports(&mut self, now: Tick) -> Vec<SpendReport> {
        self.leases.values_mut().filter_map(|lease| lease.report(now)).collect()
    }

    /// The ledger has this report.
    pub fn acked(&mut self, lease: &str, sequence: u64) {
        let found = self.leases.iter_mut().find(|(_, known)| known.id() == lease);
        let Some((number, lease)) = found else { return };
        if lease.acked(sequence) {
            let number = *number;
            if let Some(account) = self.accounts.get_mut(lease.budget_uid()) {
                account.leases.retain(|known| *known != number);
            }
            self.leases.remove(&number);
        }
    }

    /// The ledger wants this lease back.
    pub fn recall(&mut self, _: Tick, lease: &str) {
        if let Some(lease) = self.leases.values_mut().find(|known| known.id() == lease) {
            lease.drain();
        }
    }

    /// A new connection to the ledger: what has no answer is given out again, as it was.
    pub fn reconnected(&mut self) {
        for asked in self.accounts.values_mut().filter_map(|account| account.asked.as_mut()) {
            asked.sent = false;
        }
        for lease in self.leases.values_mut() {
            lease.reconnected();
        }
    }

    /// Gives everything back; calls are refused from now on.
    pub fn close(&mut self, now: Tick) {
        self.closed = true;
        for lease in self.leases.values_mut() {
            lease.drain();
        }
        self.tick(now);
    }

    /// Whether the ledger knows all that was spent and nothing is leased.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    #[cfg(test)]
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }
}

/// The least that a request asks for.
const fn least(request: &LeaseRequest) -> Spend {
    Spend { amount: request.minimum_amount, calls: request.minimum_calls }
}

fn unavailable(limit: &str) -> Outcome {
    Outcome::Refused(Denial::new(Reason::BudgetUnavailable).with_limit(limit))
}
