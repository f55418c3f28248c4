use std::collections::HashMap;

use super::super::book::Row;
use super::*;

const HOUR: i64 = 3_600_000;
/// A full hour.
const START: i64 = 1_795_003_200_000;

fn ledger(store: &Memory) -> Ledger<Memory> {
    Ledger::new(store.clone(), || NOW.get(), Duration::ZERO)
}

fn spend_limit() -> (Owner, Budget) {
    let owner = Owner { budget: "spendLimit".into(), budget_uid: "t-1".into(), ..owner() };
    (owner, Budget { name: "spendLimit".into(), uid: "t-1".into(), period: Period::Hour, ..budget(1000) })
}

/// Grants a lease of ten calls in the current period, and returns it.
async fn grant(ledger: &Ledger<Memory>, pod: &str, number: u64) -> String {
    let (owner, budget) = spend_limit();
    let amount = Amount { micros: 10_000, calls: 10 };
    let request = LeaseRequest { wanted: amount, minimum: amount, ..request(pod, number) };
    ledger.grant(&owner, &budget, &request).await.unwrap().result.unwrap().lease
}

async fn settle(ledger: &Ledger<Memory>, report: Report) {
    let done = ledger.report("t-1", "t-1", report);
    write(ledger).await;
    done.await.unwrap().unwrap();
}

/// A report of calls of one principal.
fn report_of(principal: &str, lease: &str, sequence: u64, calls: u64, last: bool) -> Report {
    let mut report = report("p", lease, sequence, calls, last);
    report.items[0].principal = principal.into();
    report
}

/// Returns the money of each principal, as `mcp_fleet_spend_total` shows it.
fn spent(ledger: &Ledger<Memory>) -> HashMap<String, u64> {
    let sums = ledger.settled_by_row().into_iter();
    sums.map(|((tenant, Row { principal, .. }), micros)| {
        assert_eq!(tenant, "t-1");
        (principal, micros)
    })
    .collect()
}

/// Returns the books in the store, by the number of their hour; -1 for that of all closed periods.
fn books(store: &Memory) -> Vec<(i64, Book)> {
    let hour = |start: i64| if start == 0 { -1 } else { (start - START / 1000) / 3600 };
    let books = store.books.lock();
    books.iter().map(|(key, stored)| (hour(key.start), stored.book.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn closed_periods_keep_their_totals_until_their_retention_ends() {
    let store = Memory::default();
    let ledger = ledger(&store);
    let mut settled = HashMap::new();
    for hour in 0..60_u64 {
        NOW.set(START + i64::try_from(hour).unwrap() * HOUR);
        let principal = format!("acme/coder-{}", hour % 3);
        let lease = grant(&ledger, "p", hour).await;
        settle(&ledger, report_of(&principal, &lease, 1, 7, hour != 20)).await;
        *settled.entry(principal).or_default() += 7000;
        assert_eq!(spent(&ledger), settled, "in hour {hour}");
        NOW.set(NOW.get() + HOUR / 2);
        ledger.expire().await;
        ledger.close_ended().await;
        ledger.remove_closed().await.unwrap();
        assert_eq!(spent(&ledger), settled, "after closing in hour {hour}");
        assert!(ledger.books().len() <= 4, "{} books are in memory in hour {hour}", ledger.books().len());
    }
    let books = books(&store);
    // The last hour is open. The others are retained for two days.
    let hours: Vec<i64> = books.iter().map(|(hour, _)| *hour).collect();
    assert_eq!(hours, [-1].into_iter().chain(11..60).collect::<Vec<_>>());
    for (hour, book) in &books[1..49] {
        assert!(book.is_closed() && book.rows.is_empty(), "hour {hour}: {book:?}");
        assert_eq!(book.settled(), Amount { micros: 7000, calls: 7 }, "hour {hour}");
        let forfeited = if *hour == 20 { 3 } else { 0 };
        assert_eq!(book.forfeited().calls, forfeited, "hour {hour}");
    }
    let new = Ledger::new(store.clone(), || NOW.get(), Duration::ZERO);
    new.load().await.unwrap();
    assert_eq!(spent(&new), settled, "a new leader shows other sums");
    assert_eq!(new.books().len(), 2, "a new leader reads closed periods");
}

#[tokio::test(start_paused = true)]
async fn a_period_is_not_closed_while_a_lease_may_be_reported_on() {
    NOW.set(START);
    let store = Memory::default();
    let ledger = ledger(&store);
    NOW.set(START + HOUR - 60_000);
    let lease = grant(&ledger, "p", 1).await;
    let closed = async |minutes: i64| {
        NOW.set(START + HOUR + minutes * 60_000);
        ledger.close_ended().await;
        only_book(&store).is_closed()
    };
    assert!(!closed(2).await, "the lease is open");
    ledger.expire().await;
    assert_eq!(only_book(&store).forfeited().calls, 10);
    assert!(!closed(61).await, "the lease was forfeited 59 minutes ago");
    settle(&ledger, report_of("acme/late", &lease, 1, 4, false)).await;
    assert_eq!((only_book(&store).settled().calls, only_book(&store).forfeited().calls), (4, 6));
    NOW.set(START + HOUR + 63 * 60_000);
    ledger.close_ended().await;
    assert_eq!(spent(&ledger), HashMap::from([("acme/late".to_owned(), 4000)]));
    // The money stays forfeited, and the holder need not report again.
    settle(&ledger, report_of("acme/late", &lease, 2, 5, true)).await;
    let book = books(&store).pop().unwrap().1;
    assert_eq!((book.settled().calls, book.forfeited().calls, book.is_closed()), (4, 6, true));
    ledger.expire().await;
    assert_eq!(ledger.books().len(), 1, "a closed book that was reported on stays in memory");
}

/// Returns a store with books of four ended hours, in each of which another principal spent something, and these sums.
async fn ended_hours() -> (Memory, HashMap<String, u64>) {
    let store = Memory::default();
    let mut settled = HashMap::new();
    for hour in 0..4 {
        NOW.set(START + hour * HOUR);
        let ledger = ledger(&store);
        let lease = grant(&ledger, "p", 1).await;
        let principal = format!("acme/coder-{hour}");
        settle(&ledger, report_of(&principal, &lease, 1, 7, hour % 2 == 0)).await;
        settled.insert(principal, 7000);
        NOW.set(NOW.get() + HOUR / 2);
        ledger.expire().await;
    }
    NOW.set(START + 6 * HOUR);
    (store, settled)
}

/// A leader that fails after some more writes.
async fn failing(store: &Memory, writes: u64) -> Ledger<Memory> {
    let last_write = store.writes.load(Ordering::Relaxed) + writes;
    let failing = ledger(&Memory { last_write, ..store.clone() });
    failing.load().await.unwrap();
    failing
}

/// Checks that a new leader closes all periods and shows these sums before and after.
async fn closes_all(store: &Memory, settled: &HashMap<String, u64>, case: &str) {
    let new = ledger(store);
    new.load().await.unwrap();
    assert_eq!(spent(&new), *settled, "a new leader, {case}");
    new.close_ended().await;
    assert_eq!(spent(&new), *settled, "a new leader that has closed the periods, {case}");
    assert!(books(store)[1..].iter().all(|(_, book)| book.is_closed() && book.settled().calls == 7), "{case}");
}

#[tokio::test(start_paused = true)]
async fn rows_move_once_even_if_the_leader_fails_after_any_write() {
    for writes in 0..12 {
        let (store, settled) = ended_hours().await;
        let failing = failing(&store, writes).await;
        failing.close_ended().await;
        assert_eq!(spent(&failing), settled, "after {writes} writes");
        closes_all(&store, &settled, &format!("after {writes} writes")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rows_move_once_even_if_two_leaders_close_at_once() {
    for writes in 0..24 {
        let (store, settled) = ended_hours().await;
        let (one, other) = (failing(&store, writes).await, failing(&store, writes + 3).await);
        tokio::join!(one.close_ended(), other.close_ended());
        closes_all(&store, &settled, &format!("after {writes} writes")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_not_the_spend_limit_keeps_only_totals() {
    NOW.set(START);
    let store = Memory::default();
    let ledger = ledger(&store);
    let lease = ledger.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap().lease;
    drop(ledger.report("t-1", "b-1", report("p", &lease, 1, 1, true)));
    write(&ledger).await;
    NOW.set(START + 36 * HOUR);
    ledger.close_ended().await;
    let book = only_book(&store);
    assert!(book.is_closed() && book.settled().calls == 1, "{book:?}");
    assert!(ledger.books().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_period_that_becomes_longer_is_closed_at_its_later_end() {
    NOW.set(START);
    let store = Memory::default();
    let ledger = ledger(&store);
    let (owner, hourly) = spend_limit();
    let midnight = START - START % (24 * HOUR);
    NOW.set(midnight);
    for budget in [&hourly, &Budget { period: Period::Day, ..hourly.clone() }] {
        let number = u64::from(budget.period == Period::Day);
        let lease = ledger.grant(&owner, budget, &request("p", number)).await.unwrap().result.unwrap().lease;
        settle(&ledger, report_of("acme/coder", &lease, 1, 1, true)).await;
    }
    NOW.set(midnight + 3 * HOUR);
    ledger.close_ended().await;
    assert!(!only_book(&store).is_closed(), "the period is a day now");
    NOW.set(midnight + 25 * HOUR);
    ledger.close_ended().await;
    assert_eq!(spent(&ledger), HashMap::from([("acme/coder".to_owned(), 2000)]));
}
