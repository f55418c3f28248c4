use super::super::reports::BATCH_INTERVAL;
use super::fleet::{Fleet, PRICE, STEP, TENANT};
use super::*;

fn spend_limit(calls: u64) -> Budget {
    let amount = Some(Micros::new(calls * PRICE.get()));
    Budget { name: "spendLimit".into(), uid: TENANT.into(), amount, calls: None, ..budget(0) }
}

fn writes(store: &Memory) -> u64 {
    store.writes.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn spending_is_written_every_fifteen_seconds_and_final_reports_at_once() {
    let store = Memory::default();
    let ledger = Ledger::new(store.clone(), || NOON, BATCH_INTERVAL);
    let mut leases = Vec::new();
    for number in 0..5 {
        let many = Amount { micros: 100_000, calls: 100 };
        let request = LeaseRequest { wanted: many, minimum: many, ..request("p", number) };
        leases.push(ledger.grant(&owner(), &budget(1000), &request).await.unwrap().result.unwrap().lease);
    }
    let granted = writes(&store);
    let mut waiting = Vec::new();
    for second in 1..=95 {
        for lease in &leases {
            waiting.push(ledger.report("t-1", "b-1", report("p", lease, second, second, false)));
        }
        for _ in 0..10 {
            ledger.flush().await;
            tokio::time::advance(STEP).await;
        }
    }
    assert_eq!(writes(&store) - granted, 6, "writes in 95 seconds of reports");
    assert_eq!(only_book(&store).settled().calls, 5 * 91);
    // Only what is written is acknowledged, and by its newest report.
    let acknowledged = waiting.iter_mut().filter_map(|done| done.try_recv().ok()).count();
    assert_eq!(acknowledged, 5 * 6);

    let mut spending = ledger.report("t-1", "b-1", report("p", &leases[1], 96, 96, false));
    let mut last = ledger.report("t-1", "b-1", report("p", &leases[0], 96, 95, true));
    ledger.flush().await;
    last.try_recv().unwrap().unwrap();
    spending.try_recv().unwrap().unwrap();
    assert_eq!(writes(&store) - granted, 7, "one write has both");
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_oldest_report_grows_until_it_is_written() {
    let store = Memory::default();
    let ledger = Ledger::new(store.clone(), || NOON, BATCH_INTERVAL);
    let lease = ledger.grant(&owner(), &budget(100), &request("p", 1)).await.unwrap().result.unwrap().lease;
    let failing = Memory { last_write: 1, ..store.clone() };
    let failing = Ledger::new(failing, || NOON, BATCH_INTERVAL);
    assert_eq!(failing.oldest_report(), Duration::ZERO);
    // Each report takes the place of the one before, but what the first one reported still waits.
    for (sequence, last) in [(1, false), (2, false), (3, true)] {
        drop(failing.report("t-1", "b-1", report("p", &lease, sequence, 1, last)));
        tokio::time::advance(Duration::from_secs(20)).await;
        failing.flush().await;
        assert_eq!(failing.oldest_report(), Duration::from_secs(20 * sequence));
    }
    let repaired = Ledger { store: store.clone(), ..failing };
    tokio::time::advance(Duration::from_secs(1)).await;
    repaired.flush().await;
    assert_eq!((only_book(&store).settled().calls, repaired.oldest_report()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_granted_begins_another_batch() {
    let store = Memory::default();
    let ledger = Ledger::new(store.clone(), || NOON, BATCH_INTERVAL);
    let lease = ledger.grant(&owner(), &budget(100), &request("p", 1)).await.unwrap().result.unwrap().lease;
    tokio::time::advance(Duration::from_secs(14)).await;
    drop(ledger.report("t-1", "b-1", report("p", &lease, 1, 0, false)));
    ledger.grant(&owner(), &budget(100), &request("p", 2)).await.unwrap().result.unwrap();
    drop(ledger.report("t-1", "b-1", report("p", &lease, 2, 1, false)));
    for (seconds, total) in [(2, 2), (12, 2), (1, 3)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        ledger.flush().await;
        assert_eq!(writes(&store), total);
    }
    assert_eq!(only_book(&store).settled().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_lease_does_not_write_the_waiting_reports() {
    let store = Memory::default();
    let ledger = Ledger::new(store.clone(), || NOON, BATCH_INTERVAL);
    let all = LeaseRequest { wanted: Amount { micros: 10_000, calls: 10 }, ..request("p", 1) };
    let all = LeaseRequest { minimum: all.wanted, ..all };
    let lease = ledger.grant(&owner(), &budget(10), &all).await.unwrap().result.unwrap().lease;
    let before = writes(&store);
    let mut waiting = ledger.report("t-1", "b-1", report("p", &lease, 1, 3, false));
    for number in 0..3 {
        let refused = ledger.grant(&owner(), &budget(10), &request("q", number)).await.unwrap().result;
        assert_eq!(refused, Err(Refusal::Held));
    }
    ledger.flush().await;
    assert_eq!((writes(&store), waiting.try_recv().is_err()), (before, true));
    // The final report frees what the other gateway waits for.
    drop(ledger.report("t-1", "b-1", report("p", &lease, 2, 3, true)));
    ledger.grant(&owner(), &budget(10), &request("q", 4)).await.unwrap().result.unwrap();
    assert_eq!(writes(&store), before + 1, "report and lease are one write");
}

#[tokio::test(start_paused = true)]
async fn a_final_report_outlives_a_store_that_does_not_answer() {
    let store = Memory::default();
    let ledger = Ledger::new(store.clone(), || NOON, BATCH_INTERVAL);
    let lease = ledger.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap().result.unwrap().lease;
    let failing = Memory { last_write: 1, ..store.clone() };
    let failing = Ledger::new(failing, || NOON, BATCH_INTERVAL);
    // This leader has not read the book: the report is its first sight of it.
    let mut waiting = failing.report("t-1", "b-1", report("p", &lease, 1, 1, true));
    failing.flush().await;
    assert!(waiting.try_recv().is_err(), "it was acknowledged before it was written");
    let repaired = Ledger { store: store.clone(), ..failing };
    tokio::time::advance(Duration::from_secs(1)).await;
    repaired.flush().await;
    waiting.try_recv().unwrap().unwrap();
    assert_eq!(only_book(&store).settled().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_stops_has_all_acknowledgements_within_a_second() {
    let store = Memory::default();
    let budgets =
        (0..256).map(|number| Budget { uid: format!("b-{number}"), name: format!("b-{number}"), ..spend_limit(100) });
    let mut fleet = Fleet::new(&store, 1, budgets.chain([spend_limit(1000)]).collect());
    for _ in 0..100 {
        assert!(fleet.call(0, "acme/coder", "read").await);
        fleet.step().await;
    }
    let took = fleet.drain().await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
    let books = store.books.lock();
    assert!(books.values().all(|stored| stored.book.settled().calls == 100 && stored.book.leases.is_empty()));
    assert_eq!(books.len(), 257);
}

#[tokio::test(start_paused = true)]
async fn spending_is_covered_whatever_fails_between_two_batches() {
    for seed in 0..12 {
        let gateways_fail = seed % 3 == 0;
        let mut random = fastrand::Rng::with_seed(seed);
        let store = Memory::default();
        let limit = 2000;
        let mut fleet = Fleet::new(&store, 3, vec![spend_limit(limit)]);
        let (mut leaders, mut restarts) = (0, 0);
        for _ in 0..2400 {
            for _ in 0..random.usize(..3) {
                let (gateway, agent) = (random.usize(..3), format!("acme/agent-{}", random.u8(..9)));
                fleet.call(gateway, &agent, "read").await;
            }
            if random.u32(..200) == 0 {
                leaders += 1;
                fleet.replace_leader().await;
            }
            if gateways_fail && random.u32(..400) == 0 {
                restarts += 1;
                fleet.restart_gateway(random.usize(..3), restarts).await;
            }
            fleet.step().await;
            if !store.books.lock().is_empty() {
                let charged = only_book(&store).charged().micros / PRICE.get();
                assert!(fleet.calls <= charged, "{} of {} calls are charged, seed {seed}", charged, fleet.calls);
                assert!(charged <= limit, "{charged} calls are charged, seed {seed}");
            }
        }
        assert!(leaders > 0 && fleet.calls > 1000, "{} calls and {leaders} leaders, seed {seed}", fleet.calls);
        fleet.drain().await;
        for _ in 0..2000 {
            fleet.step().await;
        }
        let book = only_book(&store);
        let (settled, forfeited) = (book.settled().calls, book.forfeited().micros / PRICE.get());
        assert!(book.leases.is_empty() && settled <= fleet.calls && fleet.calls <= settled + forfeited);
        if restarts == 0 {
            assert_eq!((settled, forfeited), (fleet.calls, 0), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_in_heavy_use_is_written_twice_a_second_and_an_idle_one_never() {
    let store = Memory::default();
    let mut fleet = Fleet::new(&store, 3, vec![spend_limit(100_000)]);
    let mut number = 0;
    let mut request = |fleet: &Fleet<Memory>| {
        let ledger = Arc::clone(&fleet.ledger);
        number += 1;
        let request = request(&format!("pod-{}", number % 50), number);
        let owner = Owner { tenant_uid: TENANT.into(), budget_uid: TENANT.into(), ..owner() };
        tokio::spawn(async move {
            let lease = ledger.grant(&owner, &spend_limit(100_000), &request).await.unwrap().result.unwrap().lease;
            let report = report(&request.holder.pod_uid, &lease, 1, 1, true);
            ledger.report(TENANT, TENANT, report).await.unwrap().unwrap();
        })
    };
    fleet.step().await;
    let (before, start) = (writes(&store), fleet.elapsed);
    let mut waiting = Vec::new();
    while fleet.elapsed < start + Duration::from_secs(10) {
        waiting.extend([request(&fleet), request(&fleet)]);
        fleet.step().await;
    }
    let written = writes(&store) - before;
    assert!((18..=21).contains(&written), "{written} writes in 10 seconds of 20 leases a second");
    for _ in 0..20 {
        fleet.step().await;
    }
    for done in waiting {
        assert!(done.is_finished(), "a lease or a report was not answered");
        done.await.unwrap();
    }
    let before = writes(&store);
    for _ in 0..1200 {
        fleet.step().await;
    }
    assert_eq!(writes(&store), before, "nothing happens, and the book is written");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_hangs_up_takes_no_one_elses_lease_with_it() {
    let store = Memory::default();
    let ledger = Arc::new(Ledger::new(store.clone(), || NOON, BATCH_INTERVAL));
    ledger.grant(&owner(), &budget(100), &request("p", 1)).await.unwrap().result.unwrap();
    let grant = |pod: &'static str| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move { ledger.grant(&owner(), &budget(100), &request(pod, 1)).await })
    };
    // The first waits for the time of the next write, and would write for all.
    let (first, second) = (grant("q"), grant("r"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    first.abort();
    second.await.unwrap().unwrap().result.unwrap();
    let holders: Vec<_> = only_book(&store).leases.iter().map(|lease| lease.holder.pod_uid.clone()).collect();
    assert_eq!(holders, ["p", "r"]);
}
