//! One lease: open, then draining, then ended, then forgotten once the ledger has its last report.

use std::time::Duration;

use super::items::Items;
use super::{Call, Charge, Grant, Spend, SpendReport};
use crate::tick::Tick;

/// A lease that nobody uses is given back.
const IDLE: Duration = Duration::from_secs(10);
/// How often spending is reported.
const REPORT: Duration = Duration::from_secs(1);
/// How long a report waits for its ack before a newer one is sent.
const ACK: Duration = Duration::from_secs(10);
/// How long before its deadline a lease takes no more calls, and ends: parts of its validity, and at most.
const STOP: (u32, Duration) = (4, Duration::from_secs(2));
const END: (u32, Duration) = (8, Duration::from_secs(1));

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Calls are paid from it.
    Open,
    /// No more calls; those in flight are waited for.
    Draining,
    /// Nothing is reserved, and nothing will be spent.
    Ended,
}

/// A part of a budget that this gateway may spend.
#[derive(Debug)]
pub(super) struct Lease {
    id: String,
    budget_uid: String,
    granted: Spend,
    reserved: Spend,
    spent: Spend,
    items: Items,
    stage: Stage,
    /// No more calls from then on.
    stop: Tick,
    /// What is reserved then counts as spent, so that the last report is there before the deadline.
    end: Tick,
    used: Tick,
    sequence: u64,
    reported: Tick,
    /// Spending that no report holds.
    news: bool,
    /// The newest report, until it is acked.
    sent: Option<SpendReport>,
    /// It may have been lost.
    again: bool,
}

impl Lease {
    pub(super) fn new(now: Tick, budget_uid: String, grant: Grant) -> Self {
        let Grant { lease: id, amount, calls, valid } = grant;
        let before = |(part, most): (u32, Duration)| now.plus(valid.saturating_sub((valid / part).min(most)));
        Self {
            id,
            budget_uid,
            granted: Spend { amount, calls },
            reserved: Spend::default(),
            spent: Spend::default(),
            items: Items::default(),
            stage: Stage::Open,
            stop: before(STOP),
            end: before(END),
            used: now,
            sequence: 0,
            reported: now,
            news: false,
            sent: None,
            again: false,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn budget_uid(&self) -> &str {
        &self.budget_uid
    }

    /// Whether a call can be paid from it.
    pub(super) fn fits(&self, now: Tick, need: Spend) -> bool {
        let left = self.granted.minus(self.reserved).minus(self.spent);
        self.stage == Stage::Open && now < self.stop && left.covers(need)
    }

    /// Takes what [`Lease::fits`] has said there is; gives the place among the items.
    pub(super) fn reserve(&mut self, now: Tick, call: &Call<'_>, need: Spend) -> usize {
        self.used = now;
        self.reserved = self.reserved.plus(need);
        self.items.reserve(call, need)
    }

    /// Ends a reservation; one that was counted as spent when the lease ended stays spent.
    pub(super) fn settle(&mut self, now: Tick, item: usize, reserved: Spend, charge: Charge) {
        if self.stage == Stage::Ended {
            return;
        }
        let spent = if charge == Charge::Full { reserved } else { Spend::default() };
        self.used = now;
        self.reserved = self.reserved.minus(reserved);
        self.spent = self.spent.plus(spent);
        self.items.settle(item, reserved, spent);
        self.news |= !spent.is_nothing();
        if self.stage == Stage::Draining {
            self.drain();
        }
    }

    /// Takes no more calls; ends once those in flight are settled.
    pub(super) fn drain(&mut self) {
        if self.stage != Stage::Ended {
            self.stage = if self.reserved.is_nothing() { Stage::Ended } else { Stage::Draining };
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Tick) {
        if now >= self.end && self.stage != Stage::Ended {
            self.items.spend_reserved();
            self.spent = self.spent.plus(std::mem::take(&mut self.reserved));
            self.stage = Stage::Ended;
        } else if now >= self.stop || now.since(self.used) >= IDLE && self.reserved.is_nothing() {
            self.drain();
        }
    }

    /// The report that is due, if one is.
    pub(super) fn report(&mut self, now: Tick) -> Option<SpendReport> {
        let last = self.stage == Stage::Ended;
        if self.sent.as_ref().is_some_and(|sent| sent.last) || !(last || self.is_due(now)) {
            return std::mem::take(&mut self.again).then(|| self.sent.clone()).flatten();
        }
        self.sequence += 1;
        self.reported = now;
        self.news = false;
        self.again = false;
        let report = SpendReport {
            lease: self.id.clone(),
            budget_uid: self.budget_uid.clone(),
            sequence: self.sequence,
            amount: self.spent.amount,
            calls: self.spent.calls,
            last,
            items: self.items.report(),
        };
        self.sent = Some(report.clone());
        Some(report)
    }

    fn is_due(&self, now: Tick) -> bool {
        let waited = now.since(self.reported);
        self.news && !self.again && waited >= if self.sent.is_some() { ACK } else { REPORT }
    }

    /// The newest report may have been lost with the connection.
    pub(super) fn reconnected(&mut self) {
        self.again = self.sent.is_some();
    }

    /// The ledger has the reports up to this one; true if it was the last.
    pub(super) fn acked(&mut self, sequence: u64) -> bool {
        let Some(sent) = self.sent.take_if(|sent| sent.sequence <= sequence) else { return false };
        self.again = false;
        sent.last
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
