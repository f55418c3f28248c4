//! Tests of what gateways are told about a budget.

use super::*;

fn told(ledger: &Ledger<Memory>, budget: &Budget, start: i64) -> (Option<u64>, Option<u64>, u64, u64) {
    let balance = ledger.balance(budget, start).unwrap();
    assert_eq!((balance.budget_uid.as_str(), balance.as_of), (budget.uid.as_str(), NOON));
    assert!(balance.period_end > start);
    (balance.left_amount.map(Micros::get), balance.left_calls, balance.spent_amount.get(), balance.spent_calls)
}

#[tokio::test(start_paused = true)]
async fn a_balance_is_what_is_in_no_lease_and_what_is_settled() {
    let ledger = ledger(&Memory::default());
    let budget = budget(10);
    let outcome = ledger.grant(&owner(), &budget, &request("p", 1)).await.unwrap();
    let start = outcome.span.start;
    ledger.grant(&owner(), &budget, &request("q", 1)).await.unwrap();
    assert_eq!(told(&ledger, &budget, start), (Some(998_000), Some(8), 0, 0));
    let lease = outcome.result.unwrap().lease;
    let done = ledger.report("t-1", "b-1", report("p", &lease, 1, 0, true));
    write(&ledger).await;
    done.await.unwrap().unwrap();
    assert_eq!(told(&ledger, &budget, start), (Some(999_000), Some(9), 0, 0), "what was not spent is left again");
    let lease = ledger.grant(&owner(), &budget, &request("p", 2)).await.unwrap().result.unwrap().lease;
    let done = ledger.report("t-1", "b-1", report("p", &lease, 1, 1, true));
    write(&ledger).await;
    done.await.unwrap().unwrap();
    assert_eq!(told(&ledger, &budget, start), (Some(998_000), Some(8), 1000, 1));
    // The limits are those of the policy, also of a budget that only monitors.
    assert_eq!(told(&ledger, &Budget { amount: None, ..budget.clone() }, start), (None, Some(8), 1000, 1));
    assert_eq!(told(&ledger, &Budget { calls: Some(1), ..budget.clone() }, start), (Some(998_000), Some(0), 1000, 1));
    let monitored = Budget { mode: BudgetMode::Monitor, ..budget.clone() };
    assert_eq!(told(&ledger, &monitored, start), (Some(998_000), Some(8), 1000, 1));
    assert_eq!(ledger.balance(&budget, start - 86_400), None);
    assert_eq!(ledger.balance(&Budget { uid: "b-2".into(), ..budget }, start), None);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_budget_of_that_name_used_is_not_left() {
    let ledger = ledger(&Memory::default());
    ledger.grant(&owner(), &budget(10), &request("p", 1)).await.unwrap();
    let again = Budget { uid: "b-2".into(), ..budget(10) };
    let owner = Owner { budget_uid: "b-2".into(), ..owner() };
    let start = ledger.grant(&owner, &again, &request("p", 2)).await.unwrap().span.start;
    assert_eq!(told(&ledger, &again, start), (Some(998_000), Some(8), 0, 0));
}
