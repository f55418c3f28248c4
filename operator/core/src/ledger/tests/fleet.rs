//! Gateways, their leader and a clock, simulated: the real lease pools and the real ledger.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::budget::{self as pool, Charge, LeasePool, PricedCall, ReserveOutcome};
use mcp_fleet_policy::model::{Budget, TenantPolicy};
use mcp_fleet_policy::tick::Tick;
use mcp_fleet_policy::units::Micros;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::LeaseOutcome;
use super::super::book::{Amount, GrantedLease, Holder, LeaseRequest, Refusal, Report, ReportItem};
use super::super::error::LedgerError;
use super::super::period::Span;
use super::super::record::Owner;
use super::super::reports::BATCH_INTERVAL;
use super::super::service::Ledger;
use super::super::store::Store;
use super::{NOON, NOW};
pub(super) use crate::testing::TENANT;
use crate::testing::policy;

pub(super) const STEP: Duration = Duration::from_millis(100);
/// Price of every call.
pub(super) const PRICE: Micros = Micros::new(1000);

/// A tenant's gateways and the leader that they are connected to.
pub(super) struct Fleet<S> {
    store: S,
    pub(super) ledger: Arc<Ledger<S>>,
    pub(super) gateways: Vec<Gateway>,
    policy: TenantPolicy,
    start: Instant,
    pub(super) elapsed: Duration,
    steps: usize,
    /// Calls that reached a server.
    pub(super) calls: u64,
}

/// A gateway: its lease pool, and what it has sent and the ledger has not answered.
pub(super) struct Gateway {
    holder: Holder,
    pub(super) pool: LeasePool,
    waiting: Vec<(String, u64, Acknowledgement)>,
    requests: Vec<(u64, String, Answer)>,
}

type Answer = JoinHandle<Result<LeaseOutcome, LedgerError>>;
type Acknowledgement = oneshot::Receiver<Result<(), LedgerError>>;

impl<S: Store + Clone> Fleet<S> {
    /// Starts gateways and a leader. Needs a runtime whose clock is paused.
    pub(super) fn new(store: &S, gateways: usize, budgets: Vec<Budget>) -> Self {
        NOW.set(NOON);
        let policy = policy(budgets);
        let pod = |number: usize| format!("{number:08x}-0a4c-4a6e-8d4b-2f6b7b1f9c3d");
        Self {
            store: store.clone(),
            ledger: Arc::new(Ledger::new(store.clone(), || NOW.get(), BATCH_INTERVAL)),
            gateways: (0..gateways).map(|number| Gateway::new(pod(number), 0, Tick::ZERO, &policy)).collect(),
            policy,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            steps: 0,
            calls: 0,
        }
    }

    fn tick(&self) -> Tick {
        Tick::from_elapsed(self.elapsed)
    }

    /// Makes one call through a gateway, which waits up to a second for a lease. Returns whether it was admitted.
    pub(super) async fn call(&mut self, index: usize, principal: &str, tool: &str) -> bool {
        let call = PricedCall { principal, server: "filesystem", tool, price: PRICE };
        let covers = |budget: &&Budget| {
            let selected = budget.selector.principals.as_ref();
            selected.is_none_or(|selected| selected.iter().any(|one| one == principal))
        };
        for _ in 0..10 {
            let tick = self.tick();
            let budgets = self.policy.budgets.iter().filter(covers);
            let gateway = &mut self.gateways[index];
            match gateway.pool.reserve(tick, NOW.get() / 1000, &call, budgets) {
                ReserveOutcome::Reserved(reservation) => {
                    gateway.pool.settle(tick, reservation, Charge::Full);
                    self.calls += 1;
                    return true;
                }
                ReserveOutcome::NeedLease => {
                    self.send(index);
                    self.receive().await;
                    if !self.gateways[index].requests.is_empty() {
                        self.step().await;
                    }
                }
                ReserveOutcome::Denied(_) => return false,
            }
        }
        false
    }

    /// Sends what a gateway has to send, reports first.
    pub(super) fn send(&mut self, index: usize) {
        let tick = self.tick();
        let gateway = &mut self.gateways[index];
        for report in gateway.pool.take_reports(tick) {
            gateway.report(&self.ledger, report);
        }
        for request in gateway.pool.take_lease_requests(tick) {
            let budget = self.policy.budgets.iter().find(|budget| budget.uid == request.budget_uid).unwrap().clone();
            let owner = Owner {
                tenant: "acme".into(),
                tenant_uid: TENANT.into(),
                budget: budget.name.clone(),
                budget_uid: budget.uid.clone(),
            };
            let charged = to_request(&gateway.holder, &request);
            let ledger = Arc::clone(&self.ledger);
            let answer = tokio::spawn(async move { ledger.grant(&owner, &budget, &charged).await });
            gateway.requests.push((request.request, request.budget_uid, answer));
        }
    }

    /// Lets the ledger work until it waits for time to pass, and passes its answers on. Recalled leases are returned.
    pub(super) async fn receive(&mut self) {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        let (tick, wall) = (self.tick(), NOW.get() / 1000);
        let mut recalled = Vec::new();
        for gateway in &mut self.gateways {
            gateway.receive_acknowledgements();
            for (request, budget_uid, answer) in gateway.requests.extract_if(.., |(.., answer)| answer.is_finished()) {
                let answer = answer.await.unwrap().unwrap();
                recalled.extend(answer.recall);
                let outcome = to_outcome(answer.result, answer.span, NOW.get());
                gateway.pool.answer(tick, wall, pool::LeaseAnswer { request, budget_uid, outcome });
            }
        }
        for (pod_uid, lease) in recalled {
            let holder = self.gateways.iter_mut().find(|gateway| gateway.holder.pod_uid == pod_uid).unwrap();
            holder.pool.return_lease(tick, &lease);
        }
    }

    /// Lets one step of time pass: answers arrive, gateways have their ticks, and the leader does its work.
    pub(super) async fn step(&mut self) {
        self.receive().await;
        for index in 0..self.gateways.len() {
            // Each gateway has a tick every half second, not all at the same time.
            if (self.steps + index).is_multiple_of(5) {
                let tick = self.tick();
                self.gateways[index].pool.expire_leases(tick);
                self.send(index);
            }
        }
        self.receive().await;
        self.ledger.flush().await;
        if self.steps.is_multiple_of(50) {
            self.ledger.expire().await;
        }
        tokio::time::advance(STEP).await;
        self.steps += 1;
        self.elapsed = self.start.elapsed();
        NOW.set(NOON + i64::try_from(self.elapsed.as_millis()).unwrap());
    }

    /// The leader ends and forgets all reports that it has not written. The gateways connect to the next one.
    pub(super) async fn replace_leader(&mut self) {
        self.ledger = Arc::new(Ledger::new(self.store.clone(), || NOW.get(), BATCH_INTERVAL));
        self.ledger.load().await.unwrap();
        for gateway in &mut self.gateways {
            gateway.waiting.clear();
            gateway.requests.drain(..).for_each(|(.., request)| request.abort());
            gateway.pool.resend_unanswered();
        }
    }

    /// A gateway ends and starts again in the same pod: what it had spent and not reported is forfeited.
    pub(super) async fn restart_gateway(&mut self, index: usize, restarts: u64) {
        let pod = self.gateways[index].holder.pod_uid.clone();
        self.gateways[index] = Gateway::new(pod.clone(), restarts, self.tick(), &self.policy);
        self.ledger.forfeit_pod(&pod, Some(&self.gateways[index].holder.epoch)).await;
    }

    /// Stops all gateways. Returns how long it took until the ledger had acknowledged all final reports.
    pub(super) async fn drain(&mut self) -> Duration {
        let started = self.elapsed;
        let tick = self.tick();
        for index in 0..self.gateways.len() {
            self.gateways[index].pool.close(tick);
            self.send(index);
        }
        while self.gateways.iter().any(|gateway| !gateway.pool.is_empty()) {
            self.step().await;
        }
        self.elapsed.saturating_sub(started)
    }
}

impl Gateway {
    fn new(pod_uid: String, epoch: u64, tick: Tick, policy: &TenantPolicy) -> Self {
        let mut pool = LeasePool::new();
        pool.apply(tick, policy);
        Self {
            holder: Holder { pod_uid, epoch: format!("01KB3Q7V9Z{epoch:016}") },
            pool,
            waiting: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn report<S: Store>(&mut self, ledger: &Ledger<S>, report: pool::SpendReport) {
        let (lease, sequence, budget_uid) = (report.lease.clone(), report.sequence, report.budget_uid.clone());
        let report = to_report(&self.holder, report);
        self.waiting.push((lease, sequence, ledger.report(TENANT, &budget_uid, report)));
    }

    fn receive_acknowledgements(&mut self) {
        let pool = &mut self.pool;
        self.waiting.retain_mut(|(lease, sequence, done)| match done.try_recv() {
            Ok(result) => {
                result.unwrap();
                pool.acknowledge_report(lease, *sequence);
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
    }
}

/// Converts what a gateway sends to what the ledger reads, as the control stream does.
pub(super) fn to_report(holder: &Holder, report: pool::SpendReport) -> Report {
    let item = |item: pool::SpendItem| ReportItem {
        principal: item.principal,
        server: item.server,
        tool: item.tool,
        amount: Amount { micros: item.amount.get(), calls: item.calls },
    };
    let total = Amount { micros: report.amount.get(), calls: report.calls };
    let items = report.items.into_iter().map(item).collect();
    let (holder, sequence) = (holder.clone(), report.sequence);
    Report { holder, lease: report.lease, sequence, total, last: report.last, items }
}

pub(super) fn to_request(holder: &Holder, request: &pool::LeaseRequest) -> LeaseRequest {
    let wanted = Amount { micros: request.amount.get(), calls: request.calls };
    let minimum = Amount { micros: request.minimum_amount.get(), calls: request.minimum_calls };
    LeaseRequest { holder: holder.clone(), number: request.request, wanted, minimum }
}

pub(super) fn to_outcome(result: Result<GrantedLease, Refusal>, span: Span, now_ms: i64) -> pool::LeaseOutcome {
    match result {
        Ok(granted) => pool::LeaseOutcome::Granted(pool::GrantedLease {
            lease: granted.lease,
            amount: Micros::new(granted.amount.micros),
            calls: granted.amount.calls,
            valid: Duration::from_millis(u64::try_from(granted.deadline - now_ms).unwrap_or(0)),
        }),
        Err(Refusal::Held) => pool::LeaseOutcome::Unavailable,
        Err(Refusal::Exhausted) => pool::LeaseOutcome::Exhausted { period_end: span.end },
    }
}
