//! What a person adds to a budget for one period.

use mcp_fleet_policy::model::TopUp;

use super::*;

/// Start of the day of [`NOON`].
const TODAY: i64 = NOON.div_euclid(86_400_000) * 86_400;

fn topped_up(start: i64, calls: u64) -> Budget {
    Budget { top_up: Some(TopUp { start, calls, ..TopUp::default() }), ..budget(2) }
}

/// Spends the rest of a budget, call by call. Returns how many calls there were.
async fn spend_all(ledger: &Ledger<Memory>, budget: &Budget, numbers: std::ops::Range<u64>) -> u64 {
    let mut calls = 0;
    for number in numbers {
        let outcome = ledger.grant(&owner(), budget, &request("p", number)).await.unwrap();
        let Ok(lease) = outcome.result else { break };
        drop(ledger.report("t-1", "b-1", report("p", &lease.lease, 1, 1, true)));
        write(ledger).await;
        calls += 1;
    }
    calls
}

#[tokio::test(start_paused = true)]
async fn a_top_up_counts_once_in_its_period_and_whichever_leader_reads_it() {
    let store = Memory::default();
    let first = ledger(&store);
    assert_eq!(spend_all(&first, &budget(2), 0..9).await, 2);
    let span = first.grant(&owner(), &budget(2), &request("p", 10)).await.unwrap().span;
    assert!(first.is_exhausted(&budget(2), span));
    let topped_up = topped_up(TODAY, 3);
    assert!(!first.is_exhausted(&topped_up, span), "the refusal was at the lower limit");
    assert_eq!(spend_all(&first, &topped_up, 20..22).await, 2);
    let second = ledger(&store);
    second.load().await.unwrap();
    assert_eq!(spend_all(&second, &topped_up, 30..39).await, 1, "three are added once, to the two of every day");
    let tomorrow = Ledger { now_ms: || NOON + 86_400_000, ..second };
    assert_eq!(spend_all(&tomorrow, &topped_up, 40..49).await, 2, "it ends with its period");
}

#[tokio::test(start_paused = true)]
async fn a_top_up_for_another_period_adds_nothing() {
    for start in [TODAY - 86_400, TODAY + 86_400, TODAY + 1] {
        let ledger = ledger(&Memory::default());
        assert_eq!(spend_all(&ledger, &topped_up(start, 3), 0..9).await, 2, "{start}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_top_up_that_is_taken_back_recalls_what_is_leased_beyond_the_limit() {
    let ledger = ledger(&Memory::default());
    let mut large = request("p", 1);
    large.wanted = Amount { micros: 5000, calls: 5 };
    large.minimum = large.wanted;
    let lease = ledger.grant(&owner(), &topped_up(TODAY, 3), &large).await.unwrap().result.unwrap().lease;
    assert_eq!(ledger.over_limit(&topped_up(TODAY, 3)), []);
    assert_eq!(ledger.over_limit(&budget(2)), [("p".to_owned(), lease)]);
}
