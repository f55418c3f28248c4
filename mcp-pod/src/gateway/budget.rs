//! The leases that calls are paid from: the lease book of the policy engine, shared by calls and the control stream.
//!
//! A call that fits into the leases at hand takes one uncontended lock and waits for nothing. Otherwise the control
//! stream requests a lease, and the call waits at most [`LEASE_TIMEOUT`] for the answer. Without a stream the call is
//! denied: money that the ledger has not charged cannot be spent.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mcp_fleet_policy::budget::{self, Book, Call, Charge, LeaseAnswer, LeaseRequest, Outcome, SpendReport};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::model::{Budget, TenantPolicy};
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::tick::Tick;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long a call waits for a lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The lease book of this process.
#[derive(Debug)]
pub struct Leases {
    book: Mutex<Book>,
    start: Instant,
    epoch: String,
    /// Notifies the control stream that something has to be sent before its next turn.
    unsent: Notify,
    /// Notifies waiting calls of an answer, and [`Self::returned`] of an acknowledged report.
    answered: Notify,
}

impl Leases {
    /// Returns an empty book.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::new(Book::new()),
            start: Instant::now(),
            epoch: ulid::Ulid::generate().to_string(),
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
        self.book.lock().apply(self.now(), policy);
        self.answered.notify_waiters();
    }

    /// Takes the price and one call out of every budget that covers the call, or out of none.
    ///
    /// Ends in bounded time. Every call needs a reservation, also one of a free tool that no budget covers.
    pub(crate) async fn reserve(self: &Arc<Self>, call: &Call<'_>, budgets: &[Budget]) -> Result<Reservation, Denial> {
        match self.try_reserve(call, budgets) {
            Outcome::Reserved(reservation) => Ok(self.reserved(reservation)),
            Outcome::Refused(denial) => Err(denial),
            // Boxed because it is rare, and would make the future of every call larger.
            Outcome::NeedLease => Box::pin(self.reserve_from_next_lease(call, budgets)).await,
        }
    }

    fn try_reserve(&self, call: &Call<'_>, budgets: &[Budget]) -> Outcome {
        let now = self.now();
        let outcome = self.book.lock().reserve(now, unix_now(), call, budgets.iter());
        if matches!(outcome, Outcome::NeedLease) {
            self.unsent.notify_one();
        }
        outcome
    }

    async fn reserve_from_next_lease(
        self: &Arc<Self>,
        call: &Call<'_>,
        budgets: &[Budget],
    ) -> Result<Reservation, Denial> {
        let deadline = tokio::time::sleep(LEASE_TIMEOUT);
        tokio::pin!(deadline);
        loop {
            // Listening before trying: an answer that comes in between is not missed.
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            match self.try_reserve(call, budgets) {
                Outcome::Reserved(reservation) => return Ok(self.reserved(reservation)),
                Outcome::Refused(denial) => return Err(denial),
                Outcome::NeedLease => {}
            }
            tokio::select! {
                () = answered => {}
                () = &mut deadline => {
                    return Err(Denial::new(Reason::BudgetUnavailable).with_limit("the ledger did not answer in time"));
                }
            }
        }
    }

    fn reserved(self: &Arc<Self>, reservation: budget::Reservation) -> Reservation {
        Reservation { leases: Arc::clone(self), reservation: Some(reservation) }
    }

    /// Waits until there is something to send at once.
    pub async fn something_to_send(&self) {
        self.unsent.notified().await;
    }

    /// Returns the requests to send now.
    pub fn take_requests(&self) -> Vec<LeaseRequest> {
        self.book.lock().take_requests(self.now())
    }

    /// Returns the reports to send now.
    pub fn take_reports(&self) -> Vec<SpendReport> {
        self.book.lock().take_reports(self.now())
    }

    /// A new control stream is up: whatever an earlier one may have lost is sent again, with the same numbers.
    pub(crate) fn reconnected(&self) {
        self.book.lock().reconnected();
    }

    /// Lets time pass in the book: leases expire, idle ones are returned.
    pub(crate) fn tick(&self) {
        self.book.lock().tick(self.now());
    }

    /// Applies an answer of the ledger.
    pub fn answer(&self, answer: LeaseAnswer) {
        self.book.lock().answer(self.now(), unix_now(), answer);
        self.answered.notify_waiters();
    }

    /// Marks a report as written by the ledger.
    pub fn acked(&self, lease: &str, sequence: u64) {
        self.book.lock().acked(lease, sequence);
        self.answered.notify_waiters();
    }

    /// Starts to return a lease to the leader.
    pub fn recall(&self, lease: &str) {
        self.book.lock().recall(self.now(), lease);
    }

    /// Starts to return all leases. Calls are denied from now on.
    pub(crate) fn close(&self) {
        self.book.lock().close(self.now());
        self.unsent.notify_one();
    }

    /// Waits until the ledger has acknowledged the last report of every lease.
    pub(crate) async fn returned(&self) {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if self.book.lock().is_empty() {
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
            self.leases.book.lock().settle(self.leases.now(), reservation, charge);
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
