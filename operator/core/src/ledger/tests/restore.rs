//! Books of a tenant that was restored into a cluster in which everything has another UID.

use super::super::period::Span;
use super::super::restore::Restored;
use super::*;

fn restored() -> Restored<'static> {
    let budgets = [("daily".to_owned(), "b-2".to_owned())].into();
    Restored { from: "t-1", tenant: "acme", tenant_uid: "t-2", budgets }
}

fn key(uid: &str, start: i64) -> BookKey {
    BookKey { budget_uid: uid.into(), start }
}

fn owner_of(tenant: &str, budget: &str, uid: &str) -> Owner {
    Owner { tenant: tenant.into(), tenant_uid: "t-1".into(), budget: budget.into(), budget_uid: uid.into() }
}

/// Puts a book into the store: 5 settled, 3 leased, 2 forfeited.
fn put(store: &Memory, owner: &Owner, start: i64) {
    let mut book = Book { capacity: owner.capacity(), ..Book::new(Span { start, end: start + 86_400 }) };
    book.older_forfeits = Amount { micros: 2, calls: 0 };
    let holder = Holder { pod_uid: "pod".into(), epoch: "e".into() };
    let eight = Amount { micros: 8, calls: 0 };
    let request = LeaseRequest { holder: holder.clone(), number: 1, wanted: eight, minimum: eight };
    book.grant(&request, Limit { micros: Some(100), calls: None }, "lease".into(), NOON + 60_000).unwrap();
    let amount = Amount { micros: 5, calls: 0 };
    let item = ReportItem { principal: "acme/coder".into(), server: "files".into(), tool: "read".into(), amount };
    let report = Report { holder, lease: "lease".into(), sequence: 1, total: amount, last: false, items: vec![item] };
    book.report(&report).unwrap();
    let stored = StoredBook { owner: owner.clone(), book, version: "v".into() };
    store.books.lock().insert(key(&owner.budget_uid, start), stored);
}

fn charged(store: &Memory, uid: &str, start: i64) -> Option<(u64, u64)> {
    let books = store.books.lock();
    let stored = books.get(&key(uid, start))?;
    Some((stored.book.settled().micros, stored.book.charged().micros))
}

const START: i64 = 1_794_960_000;

#[tokio::test(start_paused = true)]
async fn a_restored_tenant_keeps_what_its_budgets_have_spent() {
    let store = Memory::default();
    put(&store, &owner_of("acme", "spendLimit", "t-1"), START);
    put(&store, &owner_of("acme", "daily", "b-1"), START);
    put(&store, &owner_of("acme", "gone", "b-9"), START);
    let ledger = ledger(&store);
    ledger.load().await.unwrap();
    assert_eq!(ledger.restore(&restored()).await.unwrap(), 2);
    // Nobody holds the leases any more, so they count as spent.
    assert_eq!(charged(&store, "t-2", START), Some((5, 10)));
    assert_eq!(charged(&store, "b-2", START), Some((5, 10)));
    let books = store.books.lock().clone();
    let owners: Vec<&Owner> = books.values().map(|stored| &stored.owner).collect();
    assert!(owners.iter().any(|owner| owner.is_spend_limit() && owner.tenant_uid == "t-2"), "{owners:?}");
    assert_eq!((charged(&store, "t-1", START), charged(&store, "b-1", START)), (None, None));
    assert!(charged(&store, "b-9", START).is_some(), "a budget that does not exist yet may be restored later");
    drop(books);
    assert_eq!(ledger.restore(&restored()).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn spending_since_the_restoration_is_added_and_a_crash_adds_nothing_twice() {
    let store = Memory::default();
    put(&store, &owner_of("acme", "daily", "b-1"), START);
    put(&store, &Owner { tenant_uid: "t-2".into(), ..owner_of("acme", "daily", "b-2") }, START);
    let old = store.books.lock()[&key("b-1", START)].clone();
    let first = ledger(&store);
    first.load().await.unwrap();
    first.restore(&restored()).await.unwrap();
    assert_eq!(charged(&store, "b-2", START), Some((10, 20)));
    // The leader crashed before it removed the old book.
    store.books.lock().insert(key("b-1", START), old);
    let second = ledger(&store);
    second.load().await.unwrap();
    second.restore(&restored()).await.unwrap();
    assert_eq!(charged(&store, "b-2", START), Some((10, 20)));
    assert_eq!(charged(&store, "b-1", START), None);
}

#[tokio::test(start_paused = true)]
async fn the_books_of_another_tenant_are_not_taken_over() {
    let store = Memory::default();
    put(&store, &owner_of("beta", "daily", "b-1"), START);
    put(&store, &owner_of("beta", "spendLimit", "t-1"), START);
    let ledger = ledger(&store);
    ledger.load().await.unwrap();
    assert_eq!(ledger.restore(&restored()).await.unwrap(), 0);
    assert_eq!((charged(&store, "t-2", START), charged(&store, "b-2", START)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn what_closed_periods_spent_is_kept_and_counted_once() {
    let store = Memory::default();
    let spend_limit = owner_of("acme", "spendLimit", "t-1");
    put(&store, &spend_limit, START);
    {
        // A leader added the rows of the period to the book of all closed periods, and crashed before it closed the period.
        let mut books = store.books.lock();
        let period = books.get_mut(&key("t-1", START)).unwrap();
        period.book.forfeit(0, |_| true);
        period.book.seal();
        let period = period.clone();
        let mut closed = Book::new(Span { start: 0, end: START });
        closed.add_closed(&period.book);
        books.insert(key("t-1", 0), StoredBook { owner: spend_limit, book: closed, version: "v".into() });
    }
    let ledger = ledger(&store);
    ledger.load().await.unwrap();
    assert_eq!(ledger.restore(&restored()).await.unwrap(), 1);
    assert_eq!(charged(&store, "t-2", 0).map(|(settled, _)| settled), Some(5));
    assert_eq!(ledger.settled_by_row().values().sum::<u64>(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_someone_deletes_is_restored_from_memory() {
    let store = Memory::default();
    put(&store, &owner_of("acme", "daily", "b-1"), START);
    let ledger = ledger(&store);
    ledger.load().await.unwrap();
    let before = charged(&store, "b-1", START);
    store.books.lock().clear();
    tokio::time::advance(Duration::from_secs(1)).await;
    ledger.load().await.unwrap();
    assert_eq!(charged(&store, "b-1", START), before);
    // A write notices it at once.
    store.books.lock().clear();
    ledger.forfeit_pod("pod", None).await;
    assert_eq!(charged(&store, "b-1", START), before);
}
