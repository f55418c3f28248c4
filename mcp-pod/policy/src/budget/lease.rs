//! One lease. It is open, then draining, then ended, and is removed once the ledger has acknowledged its last report.

use std::time::Duration;

use super::items::Items;
use super::{Charge, GrantedLease, PricedCall, Spend, SpendItem, SpendReport};
use crate::tick::Tick;

/// How long a lease may be unused before it is returned.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between spend reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a report waits for its ack before a newer one is sent.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long before its deadline a lease accepts no more calls: this fraction (1/n) of its validity, but at most this.
const CLOSE_MARGIN: (u32, Duration) = (4, Duration::from_secs(2));
/// How long before its deadline a lease ends, in the same form.
const END_MARGIN: (u32, Duration) = (8, Duration::from_secs(1));

/// How long before a lease is used up, or accepts no more calls, the next one is requested. The ledger writes a book twice a
/// second, and a call waits at most a second for a lease.
const AHEAD: Duration = Duration::from_secs(5);

/// Mean time between the calls of a lease in heavy use. For one in lighter use, the next lease costs the ledger more than a
/// call that waits once in two minutes.
const HOT_INTERVAL: Duration = Duration::from_millis(500);

/// State of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Calls can reserve from it.
    Open,
    /// No new reservations; waits for open ones to be settled.
    Draining,
    /// Nothing is reserved and nothing more will be spent.
    Ended,
}

/// An amount of a budget that this gateway may spend until a deadline.
#[derive(Debug)]
#[cfg_attr(feature = "model-checking", derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct Lease {
    id: String,
    budget_uid: String,
    granted: Spend,
    reserved: Spend,
    spent: Spend,
    items: Items,
    state: State,
    granted_at: Tick,
    /// When the lease stops accepting calls.
    close_at: Tick,
    /// When the lease ends. Open reservations then count as spent, so that the last report arrives before the deadline.
    end_at: Tick,
    last_used: Tick,
    sequence: u64,
    last_report: Tick,
    /// Whether something was spent since the last report.
    unreported: bool,
    /// The newest report, until it is acknowledged.
    unacked: Option<SpendReport>,
    /// Whether `unacked` may have been lost and has to be sent again.
    resend: bool,
}

impl Lease {
    pub(super) fn new(now: Tick, budget_uid: String, grant: GrantedLease) -> Self {
        let GrantedLease { lease: id, amount, calls, valid } = grant;
        let before = |(parts, max): (u32, Duration)| now.plus(valid.saturating_sub((valid / parts).min(max)));
        Self {
            id,
            budget_uid,
            granted: Spend { amount, calls },
            reserved: Spend::default(),
            spent: Spend::default(),
            items: Items::default(),
            state: State::Open,
            granted_at: now,
            close_at: before(CLOSE_MARGIN),
            end_at: before(END_MARGIN),
            last_used: now,
            sequence: 0,
            last_report: now,
            unreported: false,
            unacked: None,
            resend: false,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn budget_uid(&self) -> &str {
        &self.budget_uid
    }

    /// Returns what calls can still take from the lease; nothing once it is closed.
    pub(super) fn left(&self, now: Tick) -> Spend {
        let open = self.state == State::Open && now < self.close_at;
        if open { self.granted.minus(self.reserved).minus(self.spent) } else { Spend::default() }
    }

    /// Returns whether the lease can cover this need.
    pub(super) fn fits(&self, now: Tick, need: Spend) -> bool {
        let left = self.granted.minus(self.reserved).minus(self.spent);
        self.state == State::Open && now < self.close_at && left.covers(need)
    }

    /// Returns whether the lease will soon accept no more calls: it is in heavy use and its deadline is near, or half of it
    /// is used and the rest will be soon, at the same pace. For one that is used up, the next call requests a lease.
    pub(super) fn is_running_out(&self, now: Tick) -> bool {
        let (age, left) = (now.since(self.granted_at), self.granted.minus(self.reserved).minus(self.spent));
        let part = |granted: u64, left: u64| {
            let used = granted - left;
            left > 0 && left <= used && u128::from(left) * age.as_nanos() <= u128::from(used) * AHEAD.as_nanos()
        };
        let calls = self.granted.calls - left.calls;
        let is_hot = u128::from(calls) * HOT_INTERVAL.as_nanos() >= age.as_nanos();
        (is_hot && now.plus(AHEAD) >= self.close_at)
            || part(self.granted.calls, left.calls)
            || part(self.granted.amount.get(), left.amount.get())
    }

    /// Reserves an amount for which [`Lease::fits`] returned true. Returns the index of the call's item.
    pub(super) fn reserve(&mut self, now: Tick, call: &PricedCall<'_>, need: Spend) -> usize {
        self.last_used = now;
        self.reserved = self.reserved.plus(need);
        self.items.reserve(call, need)
    }

    /// Adds what calls spent before the lease was granted, and for which [`Lease::fits`] returned true.
    pub(super) fn add_spent(&mut self, now: Tick, item: &SpendItem) {
        let SpendItem { principal, server, tool, amount, calls } = item;
        let spend = Spend { amount: *amount, calls: *calls };
        let index = self.reserve(now, &PricedCall { principal, server, tool, price: *amount }, spend);
        self.settle(now, index, spend, Charge::Full);
    }

    /// Settles a reservation. One that counted as spent when the lease ended stays spent.
    pub(super) fn settle(&mut self, now: Tick, item: usize, reserved: Spend, charge: Charge) {
        if self.state == State::Ended {
            return;
        }
        let spent = charge.of(reserved);
        self.last_used = now;
        self.reserved = self.reserved.minus(reserved);
        self.spent = self.spent.plus(spent);
        self.items.settle(item, reserved, spent);
        self.unreported |= !spent.is_nothing();
        if self.state == State::Draining {
            self.drain();
        }
    }

    /// Accepts no more calls; the lease ends once its open reservations are settled.
    pub(super) fn drain(&mut self) {
        if self.state != State::Ended {
            self.state = if self.reserved.is_nothing() { State::Ended } else { State::Draining };
        }
    }

    /// Ends or drains the lease if it is near its deadline or idle.
    pub(super) fn expire_leases(&mut self, now: Tick) {
        if now >= self.end_at && self.state != State::Ended {
            self.items.spend_reserved();
            self.spent = self.spent.plus(std::mem::take(&mut self.reserved));
            self.state = State::Ended;
        } else if now >= self.close_at || now.since(self.last_used) >= IDLE_TIMEOUT && self.reserved.is_nothing() {
            self.drain();
        }
    }

    /// Returns the report to send now, if one is due or has to be sent again.
    pub(super) fn report(&mut self, now: Tick) -> Option<SpendReport> {
        let last = self.state == State::Ended;
        if self.unacked.as_ref().is_some_and(|report| report.last) || !(last || self.is_due(now)) {
            return std::mem::take(&mut self.resend).then(|| self.unacked.clone()).flatten();
        }
        self.sequence += 1;
        self.last_report = now;
        self.unreported = false;
        self.resend = false;
        let report = SpendReport {
            lease: self.id.clone(),
            budget_uid: self.budget_uid.clone(),
            sequence: self.sequence,
            amount: self.spent.amount,
            calls: self.spent.calls,
            last,
            items: self.items.report(),
        };
        self.unacked = Some(report.clone());
        Some(report)
    }

    fn is_due(&self, now: Tick) -> bool {
        let interval = if self.unacked.is_some() { ACK_TIMEOUT } else { REPORT_INTERVAL };
        self.unreported && !self.resend && now.since(self.last_report) >= interval
    }

    /// Sends the newest report again if it is unacknowledged: it may have been lost with the connection.
    pub(super) fn resend_unanswered(&mut self) {
        self.resend = self.unacked.is_some();
    }

    /// Records that the ledger has stored the reports up to this one. Returns whether it was the last.
    pub(super) fn acknowledge_report(&mut self, sequence: u64) -> bool {
        let Some(report) = self.unacked.take_if(|report| report.sequence <= sequence) else { return false };
        self.resend = false;
        report.last
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.granted.covers(self.reserved.plus(self.spent)), "{self:?}");
        let items = self.items.report();
        assert_eq!(self.spent.calls, items.iter().map(|item| item.calls).sum::<u64>());
        assert_eq!(self.spent.amount.get(), items.iter().map(|item| item.amount.get()).sum::<u64>());
    }

    #[cfg(test)]
    pub(super) fn reserved_calls(&self) -> u64 {
        self.reserved.calls
    }
}
