//! Two operators, three gateways, and everything that can happen to them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use mcp_fleet_policy::budget::{self as pool, Charge, LeasePool, PricedCall, Reservation, ReserveOutcome};
use mcp_fleet_policy::model::{Budget, TopUp};
use mcp_fleet_policy::tick::Tick;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::super::LeaseOutcome;
use super::super::super::period::Span;
use super::super::super::reports::BATCH_INTERVAL;
use super::super::fleet::{PRICE, to_outcome, to_report, to_request};
use super::super::*;
use super::store::Faulty;
use crate::testing::{TENANT, policy};

const GATEWAYS: usize = 3;
const CALL: PricedCall<'_> = PricedCall { principal: "acme/coder", server: "filesystem", tool: "read", price: PRICE };

thread_local! {
    /// How far the clock of the second operator is ahead, in milliseconds.
    static SKEW: Cell<i64> = const { Cell::new(0) };
}

/// Which clock an operator reads.
const CLOCKS: [fn() -> i64; 2] = [|| NOW.get(), || NOW.get() + SKEW.get()];

type Acknowledgement = oneshot::Receiver<Result<(), LedgerError>>;
type Answer = JoinHandle<Result<LeaseOutcome, LedgerError>>;

/// A message of a gateway that has not arrived.
#[derive(Clone)]
enum Message {
    Report(pool::SpendReport),
    Request(pool::LeaseRequest),
}

struct Gateway {
    holder: Holder,
    pool: LeasePool,
    held: Vec<Reservation>,
    /// The operator that it is connected to.
    operator: usize,
    sent: Vec<Message>,
    acknowledgements: Vec<(String, u64, Acknowledgement)>,
    answers: Vec<(u64, String, usize, Answer)>,
}

pub(super) struct World {
    random: fastrand::Rng,
    /// Steps that may be faults, in percent.
    faulty: u32,
    store: Faulty,
    ledgers: [Arc<Ledger<Faulty>>; 2],
    /// The budgets that each operator knows. Their limits differ while a change is under way.
    known: [Vec<Budget>; 2],
    gateways: Vec<Gateway>,
    start: Instant,
    epochs: u64,
    /// By book: calls that were admitted and not withdrawn.
    audited: BTreeMap<BookKey, u64>,
    /// By book: the highest limit in force at a grant.
    highest: BTreeMap<BookKey, Limit>,
    admitted: u64,
}

fn budgets() -> Vec<Budget> {
    let spend_limit = Budget {
        name: "spendLimit".into(),
        uid: TENANT.into(),
        amount: Some(Micros::new(40 * PRICE.get())),
        calls: None,
        ..budget(0)
    };
    let hourly = Budget { name: "hourly".into(), period: Period::Hour, amount: None, calls: Some(12), ..budget(0) };
    vec![spend_limit, hourly]
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // Some minutes before the end of an hour, and sometimes of a day.
        let to_hour = 3_600_000 - NOON % 3_600_000;
        NOW.set(NOON + to_hour - 100_000);
        SKEW.set(0);
        let store = Faulty::default();
        store.faults.lock().random.seed(seed);
        let known = [budgets(), budgets()];
        let ledgers = CLOCKS.map(|clock| Arc::new(Ledger::new(store.clone(), clock, BATCH_INTERVAL)));
        let mut world = Self {
            faulty: [10, 30, 60, 100][random.usize(..4)],
            random,
            store,
            ledgers,
            known,
            gateways: Vec::new(),
            start: Instant::now(),
            epochs: 0,
            audited: BTreeMap::new(),
            highest: BTreeMap::new(),
            admitted: 0,
        };
        for index in 0..GATEWAYS {
            let gateway = world.new_gateway(index, 0);
            world.gateways.push(gateway);
        }
        world
    }

    pub(super) const fn calls(&self) -> u64 {
        self.admitted
    }

    fn tick(&self) -> Tick {
        Tick::from_elapsed(self.start.elapsed())
    }

    fn new_gateway(&self, index: usize, operator: usize) -> Gateway {
        let mut pool = LeasePool::new();
        pool.apply(self.tick(), &policy(self.known[0].clone()));
        let holder = Holder { pod_uid: format!("pod-{index}"), epoch: self.epochs.to_string() };
        let (acknowledgements, answers) = (Vec::new(), Vec::new());
        Gateway { holder, pool, held: Vec::new(), operator, sent: Vec::new(), acknowledgements, answers }
    }

    /// Does one random thing.
    pub(super) async fn step(&mut self) {
        let gateway = self.random.usize(..GATEWAYS);
        let operator = self.random.usize(..2);
        let kinds = if self.random.u32(..100) < self.faulty { 100 } else { 60 };
        match self.random.u32(..kinds) {
            0..30 => (0..4).for_each(|_| self.call(gateway)),
            30..40 => (0..4).for_each(|_| self.finish(gateway)),
            40..60 => {
                let millis = self.random.u64(..800);
                self.pass_time(Duration::from_millis(millis)).await;
            }
            60..66 => self.break_stream(gateway),
            66..70 => self.crash_gateway(gateway).await,
            70..73 => self.crash_operator(operator).await,
            73..77 => self.duplicate(gateway),
            77..82 => self.change_limits(operator),
            82..87 => self.store.faults.lock().percent = [0, 0, 10, 40, 100][self.random.usize(..5)],
            87..90 => SKEW.set([0, 0, 130_000, -130_000, 3_700_000, -3_700_000][self.random.usize(..6)]),
            90..96 => self.maintain(operator).await,
            _ => {
                let seconds = [5, 65, 130, 200, 3_700][self.random.usize(..5)];
                self.pass_time(Duration::from_secs(seconds)).await;
            }
        }
        for gateway in 0..GATEWAYS {
            self.send(gateway);
        }
        self.deliver(true);
        self.work().await;
        self.receive(true);
    }

    fn call(&mut self, index: usize) {
        let tick = self.tick();
        let gateway = &mut self.gateways[index];
        let budgets = self.known[gateway.operator].clone();
        if let ReserveOutcome::Reserved(reservation) =
            gateway.pool.reserve(tick, NOW.get() / 1000, &CALL, budgets.iter())
        {
            for key in books_of(&gateway.pool, &reservation) {
                *self.audited.entry(key).or_default() += 1;
            }
            gateway.held.push(reservation);
            self.admitted += 1;
        }
    }

    fn finish(&mut self, index: usize) {
        let (tick, unsent) = (self.tick(), self.random.u32(..4) == 0);
        let gateway = &mut self.gateways[index];
        let Some(reservation) = gateway.held.pop() else { return };
        if unsent {
            for key in books_of(&gateway.pool, &reservation) {
                *self.audited.get_mut(&key).unwrap() -= 1;
            }
        }
        gateway.pool.settle(tick, reservation, if unsent { Charge::Nothing } else { Charge::Full });
    }

    fn send(&mut self, index: usize) {
        let tick = self.tick();
        let gateway = &mut self.gateways[index];
        gateway.sent.extend(gateway.pool.take_reports(tick).into_iter().map(Message::Report));
        gateway.sent.extend(gateway.pool.take_lease_requests(tick).into_iter().map(Message::Request));
    }

    /// Delivers messages to the operators: some of them, in any order, or all of them.
    fn deliver(&mut self, some: bool) {
        for index in 0..GATEWAYS {
            self.random.shuffle(&mut self.gateways[index].sent);
            let mut left = Vec::new();
            for message in std::mem::take(&mut self.gateways[index].sent) {
                if some && self.random.u32(..3) == 0 {
                    left.push(message);
                } else {
                    self.arrive(index, message);
                }
            }
            self.gateways[index].sent = left;
        }
    }

    fn arrive(&mut self, index: usize, message: Message) {
        let gateway = &mut self.gateways[index];
        let ledger = Arc::clone(&self.ledgers[gateway.operator]);
        match message {
            Message::Report(report) => {
                let (lease, sequence, budget) = (report.lease.clone(), report.sequence, report.budget_uid.clone());
                let done = ledger.report(TENANT, &budget, to_report(&gateway.holder, report));
                gateway.acknowledgements.push((lease, sequence, done));
            }
            Message::Request(request) => {
                let budgets = &self.known[gateway.operator];
                let budget = budgets.iter().find(|budget| budget.uid == request.budget_uid).unwrap().clone();
                let owner = Owner {
                    tenant: "acme".into(),
                    tenant_uid: TENANT.into(),
                    budget: budget.name.clone(),
                    budget_uid: budget.uid.clone(),
                };
                let now = CLOCKS[gateway.operator]();
                let start = Span::containing(budget.period, now.div_euclid(1000)).unwrap().start;
                let highest = self.highest.entry(BookKey { budget_uid: budget.uid.clone(), start }).or_default();
                let (amount, calls) = budget.limits_in(start);
                highest.micros = highest.micros.max(amount.map(Micros::get));
                highest.calls = highest.calls.max(calls);
                let charged = to_request(&gateway.holder, &request);
                let answer = tokio::spawn(async move { ledger.grant(&owner, &budget, &charged).await });
                gateway.answers.push((request.request, request.budget_uid, gateway.operator, answer));
            }
        }
    }

    /// Lets the operators do what is due.
    async fn work(&mut self) {
        for ledger in self.ledgers.clone() {
            ledger.flush().await;
        }
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    /// Passes the answers of the operators on: some of them, in any order, or all of them.
    fn receive(&mut self, some: bool) {
        let (tick, wall) = (self.tick(), NOW.get() / 1000);
        let mut recalled = Vec::new();
        for gateway in &mut self.gateways {
            self.random.shuffle(&mut gateway.acknowledgements);
            for (lease, sequence, mut done) in std::mem::take(&mut gateway.acknowledgements) {
                if some && self.random.u32(..3) == 0 {
                    gateway.acknowledgements.push((lease, sequence, done));
                    continue;
                }
                match done.try_recv() {
                    Ok(Ok(())) => gateway.pool.acknowledge_report(&lease, sequence),
                    Ok(Err(error)) => panic!("a report was rejected: {error:?}"),
                    Err(oneshot::error::TryRecvError::Empty) => {
                        gateway.acknowledgements.push((lease, sequence, done));
                    }
                    Err(oneshot::error::TryRecvError::Closed) => {}
                }
            }
            self.random.shuffle(&mut gateway.answers);
            for (request, budget_uid, operator, answer) in std::mem::take(&mut gateway.answers) {
                let later = some && self.random.u32(..3) == 0;
                if later || !answer.is_finished() {
                    gateway.answers.push((request, budget_uid, operator, answer));
                    continue;
                }
                let outcome = match futures::FutureExt::now_or_never(answer).unwrap().unwrap() {
                    Ok(LeaseOutcome { result, span, recall }) => {
                        recalled.extend(recall);
                        to_outcome(result, span, CLOCKS[operator]())
                    }
                    Err(_) => pool::LeaseOutcome::Unavailable,
                };
                gateway.pool.answer(tick, wall, pool::LeaseAnswer { request, budget_uid, outcome });
            }
        }
        for (pod_uid, lease) in recalled {
            let holder = self.gateways.iter_mut().find(|gateway| gateway.holder.pod_uid == pod_uid);
            holder.unwrap().pool.return_lease(tick, &lease);
        }
    }

    async fn pass_time(&mut self, time: Duration) {
        NOW.set(NOW.get() + i64::try_from(time.as_millis()).unwrap());
        tokio::time::advance(time).await;
        let tick = self.tick();
        for gateway in &mut self.gateways {
            // A gateway may be slow.
            if self.random.bool() {
                gateway.pool.expire_leases(tick);
            }
        }
    }

    /// Closes the stream of a gateway, which connects to one of the operators again. What was under way is lost, or was
    /// read before.
    fn break_stream(&mut self, index: usize) {
        let operator = self.random.usize(..2);
        let late = self.random.bool();
        let gateway = &mut self.gateways[index];
        let sent = std::mem::take(&mut gateway.sent);
        if late {
            for message in sent {
                self.arrive(index, message);
            }
        }
        let gateway = &mut self.gateways[index];
        gateway.acknowledgements.clear();
        for (.., answer) in gateway.answers.drain(..) {
            if late {
                drop(answer);
            } else {
                answer.abort();
            }
        }
        gateway.operator = operator;
        gateway.pool.resend_unanswered();
    }

    async fn crash_gateway(&mut self, index: usize) {
        self.epochs += 1;
        let operator = self.random.usize(..2);
        self.break_stream(index);
        self.gateways[index] = self.new_gateway(index, operator);
        let holder = self.gateways[index].holder.clone();
        if self.random.bool() {
            self.ledgers[operator].forfeit_pod(&holder.pod_uid, Some(&holder.epoch)).await;
        }
    }

    async fn crash_operator(&mut self, operator: usize) {
        self.ledgers[operator] = Arc::new(Ledger::new(self.store.clone(), CLOCKS[operator], BATCH_INTERVAL));
        let _ = self.ledgers[operator].load().await;
        for index in 0..GATEWAYS {
            if self.gateways[index].operator == operator {
                self.break_stream(index);
            }
        }
    }

    fn duplicate(&mut self, index: usize) {
        let sent = &mut self.gateways[index].sent;
        sent.extend(self.random.choice(&*sent).cloned());
    }

    fn change_limits(&mut self, operator: usize) {
        let [spend_limit, hourly] = &mut self.known[operator][..] else { return };
        spend_limit.amount = Some(Micros::new(self.random.u64(..50) * PRICE.get()));
        hourly.calls = Some(self.random.u64(..20));
        // A person tops up this hour, the next one or none.
        let start = NOW.get().div_euclid(3_600_000) * 3600 + [0, 3600][self.random.usize(..2)];
        hourly.top_up = self.random.bool().then(|| TopUp { start, calls: self.random.u64(..20), ..TopUp::default() });
    }

    async fn maintain(&mut self, operator: usize) {
        let ledger = Arc::clone(&self.ledgers[operator]);
        match self.random.u32(..4) {
            0 => drop(ledger.load().await),
            1 => ledger.close_ended().await,
            _ => ledger.expire().await,
        }
    }

    /// Returns the books of all periods but the closed ones of the spend limit, which are added up in another.
    fn books(&self) -> BTreeMap<BookKey, Book> {
        let books = self.store.memory.books.lock();
        let periods = books.iter().filter(|(key, _)| !key.is_closed_periods());
        periods.map(|(key, stored)| (key.clone(), stored.book.clone())).collect()
    }

    /// Checks what must always be true.
    pub(super) fn check(&self) {
        let books = self.books();
        for (key, audited) in &self.audited {
            let charged = books.get(key).map_or(0, |book| calls(key, book.charged()));
            assert!(*audited <= charged, "{audited} calls, and {charged} are charged to {key:?}");
        }
        for (key, book) in &books {
            let highest = self.highest[key];
            assert!(highest.allows(book.charged()), "{:?} of {highest:?} is charged to {key:?}", book.charged());
        }
    }

    /// Ends all faults, and stops the gateways. Checks that everything is settled then.
    pub(super) async fn drain(&mut self) {
        self.store.faults.lock().percent = 0;
        SKEW.set(0);
        let tick = self.tick();
        for index in 0..GATEWAYS {
            while !self.gateways[index].held.is_empty() {
                self.finish(index);
            }
            self.break_stream(index);
            self.gateways[index].pool.close(tick);
        }
        for _ in 0..40 {
            for index in 0..GATEWAYS {
                self.send(index);
            }
            self.deliver(false);
            self.work().await;
            self.receive(false);
            self.pass_time(Duration::from_millis(500)).await;
        }
        for gateway in &self.gateways {
            assert!(gateway.pool.is_empty(), "a gateway still holds leases: {:?}", gateway.pool);
        }
        // The time of the operator with the fast clock has to come, too.
        self.pass_time(Duration::from_hours(3)).await;
        let ledger = Arc::clone(&self.ledgers[0]);
        ledger.load().await.unwrap();
        ledger.expire().await;
        self.check();
        for (key, book) in self.books() {
            assert!(book.leases.is_empty(), "leases of {key:?} never end: {:?}", book.leases);
            let (audited, settled) = (self.audited.get(&key).copied().unwrap_or(0), calls(&key, book.settled()));
            let admitted = self.admitted;
            assert!(settled <= admitted, "{settled} calls are settled, {admitted} were admitted");
            let lost = calls(&key, book.forfeited());
            assert!(audited <= settled + lost, "{audited} calls, {settled} settled, {lost} forfeited in {key:?}");
        }
    }
}

/// Returns the number of calls in an amount. The spend limit counts money.
fn calls(key: &BookKey, amount: Amount) -> u64 {
    if key.budget_uid == TENANT { amount.micros / PRICE.get() } else { amount.calls }
}

fn books_of(pool: &LeasePool, reservation: &Reservation) -> Vec<BookKey> {
    let key = |(lease, budget_uid): (String, String)| {
        let (start, _) = lease.split_once('.').unwrap();
        BookKey { budget_uid, start: start.parse().unwrap() }
    };
    pool.leases_of(reservation).into_iter().map(key).collect()
}
