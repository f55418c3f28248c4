#![allow(clippy::unwrap_used)]

mod ahead;
mod balance;
mod batches;
mod closing;
mod etcd;
mod files;
pub mod fleet;
mod restore;
mod rounds;
mod top_up;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_fleet_policy::model::{Budget, BudgetMode, Period, Selector};
use mcp_fleet_policy::units::Micros;
use parking_lot::Mutex;

use super::book::{
    Amount, Book, Holder, LEASE_DURATION, LeaseRequest, Limit, REPORT_GRACE, Refusal, Report, ReportItem,
};
use super::error::LedgerError;
use super::record::Owner;
use super::service::Ledger;
use super::slot::WRITE_INTERVAL;
use super::store::{BookKey, Listed, Page, Selection, Store, StoreError, StoredBook, retained_until};
use crate::testing::budget;

/// An in-memory store with compare-and-swap. It yields at each call so that writers interleave, and it can lose the
/// response of every n-th write.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    books: Arc<Mutex<BTreeMap<BookKey, StoredBook>>>,
    reads: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    lose_every: u64,
    /// Number of writes after which the store refuses every write; 0 for no limit.
    last_write: u64,
}

impl Store for Memory {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        tokio::task::yield_now().await;
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.books.lock().get(key).cloned())
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        tokio::task::yield_now().await;
        if self.last_write > 0 && self.writes.load(Ordering::Relaxed) >= self.last_write {
            return Err(StoreError::Unavailable("the store refuses writes".into()));
        }
        let mut books = self.books.lock();
        if books.get(key).map(|stored| stored.version.as_str()) != version {
            return Err(StoreError::Conflict);
        }
        let count = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        let version = count.to_string();
        books.insert(key.clone(), StoredBook { owner: owner.clone(), book: book.clone(), version: version.clone() });
        if self.lose_every > 0 && count.is_multiple_of(self.lose_every) {
            return Err(StoreError::Unavailable("the response was lost".into()));
        }
        Ok(version)
    }

    async fn list(&self, selection: Selection, page: Option<String>) -> Result<Page, StoreError> {
        // Pages of two, so that every test with more books reads several.
        let skip = page.map_or(0, |page| page.parse().unwrap());
        let books = self.books.lock();
        let listed: Vec<Listed> = books
            .iter()
            .filter(|(_, stored)| stored.book.is_closed() == (selection == Selection::Closed))
            .map(|(key, stored)| Listed {
                key: key.clone(),
                version: stored.version.clone(),
                retained_until: stored.book.is_closed().then(|| retained_until(stored.book.span)),
            })
            .collect();
        let next = (listed.len() > skip + 2).then(|| (skip + 2).to_string());
        Ok(Page { books: listed.into_iter().skip(skip).take(2).collect(), next })
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        let mut books = self.books.lock();
        if books.get(key).is_none_or(|stored| stored.version != version) {
            return Err(StoreError::Conflict);
        }
        books.remove(key);
        Ok(())
    }
}

const NOON: i64 = 1_795_000_000_000;

thread_local! {
    /// The clock of tests in which time passes, in Unix milliseconds. Each test runs on a thread of its own.
    static NOW: Cell<i64> = const { Cell::new(NOON) };
}

fn ledger(store: &Memory) -> Ledger<Memory> {
    Ledger::new(store.clone(), || NOON, Duration::ZERO)
}

fn owner() -> Owner {
    Owner { tenant: "acme".into(), tenant_uid: "t-1".into(), budget: "daily".into(), budget_uid: "b-1".into() }
}

fn request(pod: &str, number: u64) -> LeaseRequest {
    let one = Amount { micros: 1000, calls: 1 };
    LeaseRequest { holder: Holder { pod_uid: pod.into(), epoch: "e".into() }, number, wanted: one, minimum: one }
}

fn report(pod: &str, lease: &str, sequence: u64, calls: u64, last: bool) -> Report {
    let amount = Amount { micros: calls * 1000, calls };
    let string = |name: &str| name.to_owned();
    let items =
        vec![ReportItem { principal: string("acme/coder"), server: string("files"), tool: string("read"), amount }];
    let holder = Holder { pod_uid: pod.into(), epoch: "e".into() };
    Report { holder, lease: lease.into(), sequence, total: amount, last, items }
}

/// Writes the pending reports, as soon as the book may be written again.
async fn write(ledger: &Ledger<Memory>) {
    tokio::time::advance(WRITE_INTERVAL).await;
    ledger.flush().await;
}

fn only_book(store: &Memory) -> Book {
    let books = store.books.lock();
    assert_eq!(books.len(), 1);
    books.values().next().unwrap().book.clone()
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_written_when_granted_and_settled_by_its_final_report() {
    let store = Memory::default();
    let ledger = ledger(&store);
    let outcome = ledger.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap();
    let lease = outcome.result.unwrap().lease;
    assert_eq!(only_book(&store).leased(), Amount { micros: 1000, calls: 1 });
    let done = ledger.report("t-1", "b-1", report("p", &lease, 1, 1, true));
    write(&ledger).await;
    done.await.unwrap().unwrap();
    assert_eq!((only_book(&store).settled().calls, only_book(&store).leased().calls), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_report_from_another_tenant_is_rejected() {
    let store = Memory::default();
    let ledger = ledger(&store);
    let lease = ledger.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap().lease;
    let done = ledger.report("t-2", "b-1", report("p", &lease, 1, 1, true));
    write(&ledger).await;
    assert!(matches!(done.await.unwrap(), Err(LedgerError::WrongTenant)));
    assert_eq!(only_book(&store).settled().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn two_racing_leaders_never_exceed_the_limit_or_lose_a_report() {
    for lose_every in [0, 3] {
        let store = Memory { lose_every, ..Memory::default() };
        let leaders = [Arc::new(ledger(&store)), Arc::new(ledger(&store))];
        let spent = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for worker in 0..6_usize {
            let (leaders, spent) = (leaders.clone(), Arc::clone(&spent));
            tasks.push(tokio::spawn(async move {
                let pod = format!("p{worker}");
                for number in 0..20_u64 {
                    // A gateway that got no response repeats its request, not always at the same replica.
                    for attempt in 0..4_usize {
                        let leader = &leaders[(worker + attempt) % 2];
                        let Ok(outcome) = leader.grant(&owner(), &budget(50), &request(&pod, number)).await else {
                            continue;
                        };
                        let Ok(granted) = outcome.result else { break };
                        spent.fetch_add(granted.amount.calls, Ordering::Relaxed);
                        let report = report(&pod, &granted.lease, 1, granted.amount.calls, true);
                        drop(leaders[attempt % 2].report("t-1", "b-1", report));
                        break;
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let book = only_book(&store);
        let limit = Limit { micros: Some(1_000_000), calls: Some(50) };
        assert!(limit.allows(book.charged()), "{:?}", book.charged());
        assert!(spent.load(Ordering::Relaxed) <= book.charged().calls);
        assert!(spent.load(Ordering::Relaxed) > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_leader_settled_is_not_granted_again() {
    let store = Memory::default();
    let (old, new) = (ledger(&store), ledger(&store));
    let first = old.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap();
    let done = new.report("t-1", "b-1", report("p", &first.lease, 1, 1, true));
    write(&new).await;
    done.await.unwrap().unwrap();
    let again = old.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap();
    assert_ne!(again.lease, first.lease, "a settled lease was granted again");
    assert!(again.new);
}

#[tokio::test(start_paused = true)]
async fn a_report_on_a_lease_that_another_leader_granted_is_applied() {
    let store = Memory::default();
    let (old, new) = (ledger(&store), ledger(&store));
    old.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap();
    new.load().await.unwrap();
    let late = old.grant(&owner(), &budget(10), &request("p", 2)).await.unwrap().result.unwrap();
    let done = new.report("t-1", "b-1", report("p", &late.lease, 1, 1, true));
    write(&new).await;
    done.await.unwrap().unwrap();
    assert_eq!(only_book(&store).settled().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_leases_of_an_ended_process_are_forfeited() {
    let store = Memory::default();
    let ledger = ledger(&store);
    ledger.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap();
    let mut restarted = request("p", 1);
    restarted.holder.epoch = "f".into();
    ledger.grant(&owner(), &budget(10), &restarted).await.unwrap().result.unwrap();
    ledger.forfeit_pod("p", Some("f")).await;
    assert_eq!((only_book(&store).leased().calls, only_book(&store).forfeited().calls), (1, 1));
    ledger.forfeit_pod("p", None).await;
    assert_eq!((only_book(&store).leased().calls, only_book(&store).forfeited().calls), (0, 2));
}

/// Returns the number of milliseconds after which a lease is forfeited, plus a second.
fn overdue() -> i64 {
    i64::try_from((LEASE_DURATION + REPORT_GRACE).as_millis()).unwrap() + 1000
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_forfeited_when_deadline_and_grace_have_passed() {
    let store = Memory::default();
    ledger(&store).grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap();
    let later = Ledger::new(store.clone(), || NOON + overdue(), Duration::ZERO);
    later.load().await.unwrap();
    later.expire().await;
    assert_eq!((only_book(&store).leased().calls, only_book(&store).forfeited().calls), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn loading_again_reads_only_the_books_that_another_writer_changed() {
    let store = Memory::default();
    let (old, new) = (ledger(&store), ledger(&store));
    let budgets: Vec<Budget> = (0..5).map(|number| Budget { uid: format!("b-{number}"), ..budget(10) }).collect();
    let owner = |budget: &Budget| Owner { budget_uid: budget.uid.clone(), ..owner() };
    for budget in &budgets {
        old.grant(&owner(budget), budget, &request("p", 1)).await.unwrap().result.unwrap();
    }
    let reads = || store.reads.swap(0, Ordering::Relaxed);
    reads();
    new.load().await.unwrap();
    assert_eq!((reads(), new.books().len()), (5, 5));
    new.load().await.unwrap();
    assert_eq!(reads(), 0, "no book has changed");
    old.grant(&owner(&budgets[3]), &budgets[3], &request("p", 2)).await.unwrap().result.unwrap();
    new.load().await.unwrap();
    assert_eq!(reads(), 1);
    assert_eq!(new.book("b-3", only_start(&store)).unwrap().book.leases.len(), 2);
    let closed = BookKey { budget_uid: "b-2".into(), start: only_start(&store) };
    {
        let mut books = store.books.lock();
        let book = &mut books.get_mut(&closed).unwrap().book;
        book.forfeit(0, |_| true);
        book.close();
    }
    new.load().await.unwrap();
    assert_eq!((reads(), new.books().len()), (1, 4), "a book that another leader closed stays in memory");
}

/// Returns the start of the period that all books have.
fn only_start(store: &Memory) -> i64 {
    let books = store.books.lock();
    let start = books.keys().next().unwrap().start;
    assert!(books.keys().all(|key| key.start == start));
    start
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_never_granted_a_lease_leaves_memory_after_its_period() {
    let store = Memory::default();
    let ledger = ledger(&store);
    let refused = ledger.grant(&owner(), &budget(0), &request("p", 1)).await.unwrap();
    assert_eq!(refused.result, Err(Refusal::Exhausted));
    ledger.expire().await;
    assert!(ledger.is_exhausted(&budget(0), refused.span), "it is exhausted until its period ends");
    assert!(!ledger.is_exhausted(&budget(1), refused.span), "nothing was refused at the raised limit");
    let later = Ledger { now_ms: || NOON + 24 * 3_600_000, ..ledger };
    later.expire().await;
    assert!(later.slots.read().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_created_again_continues_what_was_used_of_its_period() {
    let store = Memory::default();
    let first = ledger(&store);
    let mut large = request("p", 1);
    large.wanted = Amount { micros: 6000, calls: 6 };
    large.minimum = large.wanted;
    let lease = first.grant(&owner(), &budget(10), &large).await.unwrap().result.unwrap().lease;

    // A new leader knows it as well.
    let second = ledger(&store);
    second.load().await.unwrap();
    let (again, named) = (Budget { uid: "b-2".into(), ..budget(10) }, Owner { budget_uid: "b-2".into(), ..owner() });
    let refused = second.grant(&named, &again, &large).await.unwrap();
    assert_eq!(refused.result, Err(Refusal::Exhausted));
    assert_eq!(second.used_before("b-2", refused.span.start).calls, 6);
    // What the old one returns is free again.
    let done = second.report("t-1", "b-1", report("p", &lease, 1, 2, true));
    write(&second).await;
    done.await.unwrap().unwrap();
    second.grant(&named, &again, &large).await.unwrap().result.unwrap();
    assert_eq!(second.grant(&named, &again, &request("p", 2)).await.unwrap().result.unwrap().amount.calls, 1);
    let mut rest = request("p", 3);
    rest.minimum = Amount { micros: 1000, calls: 2 };
    assert!(second.grant(&named, &again, &rest).await.unwrap().result.is_err(), "2 + 6 + 1 of 10 calls are used");

    // Other budgets, periods and tenants have records of their own.
    let other = |budget: Budget, owner: Owner| {
        let (second, large) = (&second, &large);
        async move { second.grant(&owner, &budget, large).await.unwrap().result.is_ok() }
    };
    let uid = |uid: &str| (Budget { uid: uid.into(), ..budget(10) }, Owner { budget_uid: uid.into(), ..owner() });
    let (hourly, owner) = uid("b-3");
    assert!(other(Budget { period: Period::Hour, ..hourly }, owner).await);
    let (named, owner) = uid("b-4");
    assert!(other(named, Owner { budget: "weekly".into(), ..owner }).await);
    let (foreign, owner) = uid("b-5");
    assert!(other(foreign, Owner { tenant_uid: "t-2".into(), ..owner }).await);
}

#[tokio::test(start_paused = true)]
async fn a_lowered_limit_recalls_all_leases_and_grants_none_until_it_fits() {
    let store = Memory::default();
    let ledger = ledger(&store);
    let mut large = request("p", 1);
    large.wanted = Amount { micros: 6000, calls: 6 };
    large.minimum = large.wanted;
    let first = ledger.grant(&owner(), &budget(10), &large).await.unwrap().result.unwrap().lease;
    let second = ledger.grant(&owner(), &budget(10), &request("q", 1)).await.unwrap().result.unwrap().lease;
    assert_eq!(ledger.over_limit(&budget(7)), []);
    let lowered = budget(6);
    let recalled = [("p".to_owned(), first.clone()), ("q".to_owned(), second.clone())];
    assert_eq!(ledger.over_limit(&lowered), recalled);
    ledger.grant(&owner(), &lowered, &request("r", 1)).await.unwrap().result.unwrap_err();

    // The first is returned with five calls, which leaves none while the second is out.
    drop(ledger.report("t-1", "b-1", report("p", &first, 1, 5, true)));
    write(&ledger).await;
    assert_eq!(ledger.over_limit(&lowered), []);
    let refused = ledger.grant(&owner(), &lowered, &request("r", 2)).await.unwrap().result;
    assert_eq!(refused, Err(Refusal::Held));
    drop(ledger.report("t-1", "b-1", report("q", &second, 1, 0, true)));
    ledger.grant(&owner(), &lowered, &request("r", 3)).await.unwrap().result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_monitors_counts_beyond_its_limit_until_it_is_enforced() {
    let store = Memory::default();
    let ledger = ledger(&store);
    let monitored = Budget { mode: BudgetMode::Monitor, ..budget(2) };
    for number in 1..=3 {
        let lease = ledger.grant(&owner(), &monitored, &request("p", number)).await.unwrap().result.unwrap();
        assert_eq!(lease.amount.calls, 1);
        let done = ledger.report("t-1", "b-1", report("p", &lease.lease, 1, 1, true));
        write(&ledger).await;
        done.await.unwrap().unwrap();
    }
    assert_eq!(only_book(&store).settled().calls, 3);
    let open = ledger.grant(&owner(), &monitored, &request("p", 4)).await.unwrap().result.unwrap().lease;
    assert_eq!(ledger.over_limit(&monitored), []);
    // Once it is enforced, what was spent counts, and leases without a limit are recalled.
    assert_eq!(ledger.grant(&owner(), &budget(2), &request("p", 5)).await.unwrap().result, Err(Refusal::Exhausted));
    assert_eq!(ledger.over_limit(&budget(100)), [("p".to_owned(), open)]);
}
