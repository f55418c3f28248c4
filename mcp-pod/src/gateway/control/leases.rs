//! The gateway's purse: what the book of leases says, driven by the stream and drawn upon by every call.
//!
//! A call that finds room in its leases takes one uncontended lock and waits for nothing. One that does not asks the
//! stream to fetch a lease and waits for the answer, at most [`PATIENCE`]; without a stream it is refused, because
//! money that the ledger has not charged cannot be spent.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mcp_fleet_control::wire;
use mcp_fleet_policy::budget::{self, Book, Call, Outcome};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::tick::Tick;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message;
use crate::gateway::budget::{Attempt, Budgets, CallFacts, Charge, Reservation};

/// How long a call waits for a lease.
const PATIENCE: Duration = Duration::from_secs(1);

/// The book and those who wait for it.
#[derive(Debug)]
pub(super) struct Leases {
    book: Mutex<Book>,
    start: Instant,
    epoch: String,
    /// Wakes the stream: there is something to send that cannot wait for its next turn.
    wanted: Notify,
    /// Wakes calls that wait for a lease, and whoever waits for the last report to be taken.
    answered: Notify,
}

impl Leases {
    /// An empty purse of this process: its epoch is no other process's.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::new(Book::new()),
            start: Instant::now(),
            epoch: ulid::Ulid::generate().to_string(),
            wanted: Notify::new(),
            answered: Notify::new(),
        })
    }

    /// With the pod's UID, the name of the holder of these leases.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    fn now(&self) -> Tick {
        Tick::from_elapsed(self.start.elapsed())
    }

    /// The budgets of a policy that comes into force.
    pub(super) fn apply(&self, policy: &TenantPolicy) {
        self.book.lock().apply(self.now(), policy);
        self.answered.notify_waiters();
    }

    fn reserve(&self, call: &CallFacts) -> Outcome {
        let now = self.now();
        let CallFacts { principal, server, tool, price, budgets } = call;
        let call = Call { principal, server, tool, price: *price };
        let outcome = self.book.lock().reserve(now, unix_now(), &call, budgets.iter());
        if matches!(outcome, Outcome::NeedLease) {
            self.wanted.notify_one();
        }
        outcome
    }

    async fn wait(self: Arc<Self>, call: Arc<CallFacts>) -> Result<Box<dyn Reservation>, Denial> {
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        loop {
            // Listening before looking: an answer in between is not missed.
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            match self.reserve(&call) {
                Outcome::Reserved(reservation) => return Ok(Held::boxed(self.clone(), reservation)),
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

    /// Waits until there is something to send at once.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// What to ask for now.
    pub(super) fn take_requests(&self) -> Vec<wire::LeaseRequest> {
        let requests = self.book.lock().take_requests(self.now());
        requests.into_iter().map(message::request).collect()
    }

    /// What to report now.
    pub(super) fn take_reports(&self) -> Vec<wire::SpendReport> {
        let reports = self.book.lock().take_reports(self.now());
        reports.into_iter().map(message::report).collect()
    }

    /// A stream stands: what an earlier one may have lost is sent again, with the same numbers.
    pub(super) fn reconnected(&self) {
        self.book.lock().reconnected();
    }

    /// Lets time pass in the book: leases expire, idle ones are returned.
    pub(super) fn tick(&self) {
        self.book.lock().tick(self.now());
    }

    /// Takes an answer of the ledger.
    pub(super) fn answer(&self, answer: wire::LeaseAnswer) {
        self.book.lock().answer(self.now(), unix_now(), message::answer(answer));
        self.answered.notify_waiters();
    }

    /// The ledger has written a report.
    pub(super) fn acked(&self, ack: &wire::SpendAck) {
        self.book.lock().acked(&ack.lease, ack.sequence);
        self.answered.notify_waiters();
    }

    /// The leader wants a lease back.
    pub(super) fn recall(&self, recall: &wire::LeaseRecall) {
        self.book.lock().recall(self.now(), &recall.lease);
    }

    /// Returns everything: no call will come any more.
    pub(super) fn close(&self) {
        self.book.lock().close(self.now());
        self.wanted.notify_one();
    }

    /// Waits until the ledger has taken the last report.
    pub(super) async fn returned(&self) {
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

/// What calls hold of the purse.
#[derive(Clone, Debug)]
pub(super) struct Purse(pub(super) Arc<Leases>);

impl Budgets for Purse {
    fn reserve(&self, call: &Arc<CallFacts>) -> Attempt {
        match self.0.reserve(call) {
            Outcome::Reserved(reservation) => Attempt::Ready(Ok(Held::boxed(self.0.clone(), reservation))),
            Outcome::Refused(denial) => Attempt::Ready(Err(denial)),
            Outcome::NeedLease => Attempt::Wait(Box::pin(self.0.clone().wait(call.clone()))),
        }
    }
}

/// What was taken out for one call.
#[derive(Debug)]
struct Held {
    leases: Arc<Leases>,
    reservation: Option<budget::Reservation>,
}

impl Held {
    fn boxed(leases: Arc<Leases>, reservation: budget::Reservation) -> Box<dyn Reservation> {
        Box::new(Self { leases, reservation: Some(reservation) })
    }

    fn end(&mut self, charge: budget::Charge) {
        if let Some(reservation) = self.reservation.take() {
            self.leases.book.lock().settle(self.leases.now(), reservation, charge);
        }
    }
}

impl Reservation for Held {
    fn settle(mut self: Box<Self>, charge: Charge) {
        self.end(match charge {
            Charge::Full => budget::Charge::Full,
            Charge::Nothing => budget::Charge::Nothing,
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end(budget::Charge::Full);
    }
}

/// Wall-clock time, for the end of periods alone.
fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
