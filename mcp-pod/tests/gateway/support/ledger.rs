//! A fake ledger behind the gateway's leases: grants every lease until a test exhausts the budgets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_policy::budget::{GrantedLease, LeaseAnswer, LeaseOutcome, LeaseRequest};
use mcp_fleet_policy::units::Micros;
use mcp_pod::gateway::Leases;
use parking_lot::Mutex;

use super::PATIENCE;

/// A fake ledger.
pub(crate) struct Ledger {
    pub(crate) leases: Arc<Leases>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    granted: Mutex<Vec<String>>,
    /// Requests that wait while the ledger is paused; `None` while it answers at once.
    paused: Mutex<Option<Vec<LeaseRequest>>>,
    exhausted_until: Mutex<Option<i64>>,
    spent: Mutex<Spent>,
}

/// What calls have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) calls: u64,
    pub(crate) amount: Micros,
}

impl Ledger {
    pub(crate) fn start() -> Self {
        let (leases, shared) = (Leases::new(PATIENCE), Arc::<Shared>::default());
        let ledger = Self { leases: Arc::clone(&leases), shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                leases.something_to_send().await;
                for request in leases.take_lease_requests() {
                    match &mut *shared.paused.lock() {
                        Some(waiting) => waiting.push(request),
                        None => leases.answer(shared.answer(request)),
                    }
                }
            }
        });
        ledger
    }

    /// Answers nothing until [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.shared.paused.lock().get_or_insert_default();
    }

    /// Returns whether a request for a lease waits for [`Self::resume`].
    pub(crate) fn is_asked(&self) -> bool {
        self.shared.paused.lock().as_ref().is_some_and(|waiting| !waiting.is_empty())
    }

    /// Answers the requests that wait, and those that come from now on.
    pub(crate) fn resume(&self) {
        let waiting = self.shared.paused.lock().take();
        for request in waiting.unwrap_or_default() {
            self.leases.answer(self.shared.answer(request));
        }
    }

    /// Grants nothing from now on. The budgets reset at `until` (Unix seconds).
    pub(crate) fn exhaust(&self, until: i64) {
        *self.shared.exhausted_until.lock() = Some(until);
    }

    /// Returns whether a lease was granted since the last call of [`Self::spent`].
    pub(crate) fn has_granted(&self) -> bool {
        !self.shared.granted.lock().is_empty()
    }

    /// Returns what was spent so far, once every call is settled.
    pub(crate) async fn spent(&self) -> Spent {
        let mut open = std::mem::take(&mut *self.shared.granted.lock());
        for lease in &open {
            self.leases.return_lease(lease);
        }
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            for report in self.leases.take_reports() {
                self.leases.acknowledge_report(&report.lease, report.sequence);
                if report.last {
                    open.retain(|lease| *lease != report.lease);
                    let mut spent = self.shared.spent.lock();
                    spent.calls += report.calls;
                    spent.amount = spent.amount.saturating_add(report.amount);
                }
            }
            if open.is_empty() {
                return *self.shared.spent.lock();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("calls are not settled: leases {open:?} have no final report");
    }
}

impl Shared {
    fn answer(&self, request: LeaseRequest) -> LeaseAnswer {
        let LeaseRequest { request, budget_uid, amount, calls, .. } = request;
        let exhausted = *self.exhausted_until.lock();
        let outcome = exhausted.map_or_else(
            || {
                let lease = format!("lease-{request}");
                self.granted.lock().push(lease.clone());
                LeaseOutcome::Granted(GrantedLease { lease, amount, calls, valid: Duration::from_mins(5) })
            },
            |period_end| LeaseOutcome::Exhausted { period_end },
        );
        LeaseAnswer { request, budget_uid, outcome }
    }
}
