//! The leases that calls are paid from: the lease pool of the policy engine, shared by calls and the control stream.
//!
//! A call that fits into the leases at hand takes one uncontended lock and waits for nothing. Otherwise the control
//! stream requests a lease, and the call waits for the answer, but not for long. Without a stream the call is
//! denied: money that the ledger has not charged cannot be spent.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mcp_fleet_policy::budget::{
    self, BudgetBalance, BudgetStanding, Charge, LeaseAnswer, LeasePool, LeaseRequest, PricedCall, ReserveOutcome,
    SpendReport,
};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::model::{Budget, TenantPolicy};
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::tick::Tick;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The lease pool of this process.
#[derive(Debug)]
pub struct Leases {
    pool: Mutex<LeasePool>,
    start: Instant,
    epoch: String,
    /// How long a call waits for a lease.
    timeout: Duration,
    /// Notifies the control stream that something has to be sent before its next turn.
    unsent: Notify,
    /// Notifies waiting calls of an answer, and [`Self::returned`] of an acknowledged report.
    answered: Notify,
}

impl Leases {
    /// Returns an empty pool, for whose leases a call waits at most this long.
    pub fn new(timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            pool: Mutex::new(LeasePool::new()),
            start: Instant::now(),
            epoch: ulid::Ulid::generate().to_string(),
            timeout,
            unsent: Notify::new(),
            answered: Notify::new(),
        })
    }

    /// Returns the epoch of this process. Together with the pod's UID it names the holder of these leases.
    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    fn now(&self) -> Tick {
        Tick::from_elapsed(self.start.elapsed())
    }

    /// Replaces the budgets by those of a policy that comes into force.
    pub(crate) fn apply(&self, policy: &TenantPolicy) {
        self.pool.lock().apply(self.now(), policy);
        self.answered.notify_waiters();
    }

    /// Takes the price and one call out of every budget that covers the call, or out of none.
    ///
    /// Ends in bounded time. Every call needs a reservation, also one of a free tool that no budget covers.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        call: &PricedCall<'_>,
        budgets: &[Budget],
    ) -> Result<Reservation, Denial> {
        match self.try_reserve(call, budgets) {
            ReserveOutcome::Reserved(reservation) => Ok(self.reserved(reservation)),
            ReserveOutcome::Denied(denial) => Err(denial),
            // Boxed because it is rare, and would make the future of every call larger.
            ReserveOutcome::NeedLease => Box::pin(self.reserve_from_next_lease(call, budgets)).await,
        }
    }

    fn try_reserve(&self, call: &PricedCall<'_>, budgets: &[Budget]) -> ReserveOutcome {
        let (now, wall) = (self.now(), unix_now());
        let (outcome, is_new) = {
            let mut pool = self.pool.lock();
            let outcome = pool.reserve(now, wall, call, budgets.iter());
            (outcome, pool.has_new_request())
        };
        // Also if the call need not wait: the next one would have to.
        if is_new {
            self.unsent.notify_one();
        }
        outcome
    }

    async fn reserve_from_next_lease(
        self: &Arc<Self>,
        call: &PricedCall<'_>,
        budgets: &[Budget],
    ) -> Result<Reservation, Denial> {
        let deadline = tokio::time::sleep(self.timeout);
        tokio::pin!(deadline);
        loop {
            // Listening before trying: an answer that comes in between is not missed.
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            match self.try_reserve(call, budgets) {
                ReserveOutcome::Reserved(reservation) => return Ok(self.reserved(reservation)),
                ReserveOutcome::Denied(denial) => return Err(denial),
                ReserveOutcome::NeedLease => {}
            }
            tokio::select! {
                () = answered => {}
                () = &mut deadline => {
                    return Err(Denial::new(Reason::BudgetUnavailable).with_limit("the ledger did not answer in time"));
                }
            }
        }
    }

    /// Returns what is known about a budget, by its UID.
    pub(crate) fn standing(&self, budget_uid: &str) -> BudgetStanding {
        self.pool.lock().standing(self.now(), unix_now(), budget_uid)
    }

    fn reserved(self: &Arc<Self>, reservation: budget::Reservation) -> Reservation {
        Reservation { leases: Arc::clone(self), reservation: Some(reservation) }
    }

    /// Waits until there is something to send at once.
    pub async fn something_to_send(&self) {
        self.unsent.notified().await;
    }

    /// Returns the requests to send now.
    pub fn take_lease_requests(&self) -> Vec<LeaseRequest> {
        self.pool.lock().take_lease_requests(self.now())
    }

    /// Returns the reports to send now.
    pub fn take_reports(&self) -> Vec<SpendReport> {
        self.pool.lock().take_reports(self.now())
    }

    /// A new control stream is up: whatever an earlier one may have lost is sent again, with the same numbers.
    pub(crate) fn resend_unanswered(&self) {
        self.pool.lock().resend_unanswered();
    }

    /// Lets time pass in the pool: leases expire, idle ones are returned.
    pub(crate) fn expire_leases(&self) {
        self.pool.lock().expire_leases(self.now());
    }

    /// Applies an answer of the ledger.
    pub fn answer(&self, answer: LeaseAnswer) {
        self.pool.lock().answer(self.now(), unix_now(), answer);
        self.answered.notify_waiters();
    }

    /// Takes note of what the ledger says about a budget.
    pub fn note_balance(&self, balance: BudgetBalance) {
        self.pool.lock().note_balance(self.now(), unix_now(), balance);
    }

    /// Marks a report as written by the ledger.
    pub fn acknowledge_report(&self, lease: &str, sequence: u64) {
        self.pool.lock().acknowledge_report(lease, sequence);
        self.answered.notify_waiters();
    }

    /// Starts to return a lease to the leader.
    pub fn return_lease(&self, lease: &str) {
        self.pool.lock().return_lease(self.now(), lease);
    }

    /// Starts to return all leases. Calls are denied from now on.
    pub(crate) fn close(&self) {
        self.pool.lock().close(self.now());
        self.unsent.notify_one();
    }

    /// Whether the leases are being returned, because the process ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.pool.lock().is_closed()
    }

    /// Waits until the ledger has acknowledged the last report of every lease.
    pub(crate) async fn returned(&self) {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if self.pool.lock().is_empty() {
                return;
            }
            answered.await;
        }
    }
}

/// What one call has taken out of its budgets. Dropped unsettled, it is charged in full: the server may have seen the
/// call.
#[derive(Debug)]
pub(crate) struct Reservation {
    leases: Arc<Leases>,
    reservation: Option<budget::Reservation>,
}

impl Reservation {
    /// Ends the reservation.
    pub(crate) fn settle(mut self, charge: Charge) {
        self.end(charge);
    }

    fn end(&mut self, charge: Charge) {
        if let Some(reservation) = self.reservation.take() {
            self.leases.pool.lock().settle(self.leases.now(), reservation, charge);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(Charge::Full);
    }
}

/// Returns the wall-clock time in Unix seconds. Used for the end of budget periods only.
fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
