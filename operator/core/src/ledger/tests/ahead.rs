//! Leases that gateways request before a call needs them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_budget_is_not_exhausted_while_the_gateway_that_is_refused_has_enough_for_a_call() {
    let store = Memory::default();
    let ledger = ledger(&store);
    let monthly = Budget { amount: None, ..budget(1) };
    let outcome = ledger.grant(&owner(), &monthly, &request("p", 1)).await.unwrap();
    let (span, lease) = (outcome.span, outcome.result.unwrap().lease);
    let refused = ledger.grant(&owner(), &monthly, &request("p", 2)).await.unwrap();
    assert_eq!(refused.result, Err(Refusal::Exhausted));
    assert!(!ledger.is_exhausted(&monthly, span), "the call of the open lease can be made");
    drop(ledger.report("t-1", "b-1", report("p", &lease, 1, 1, true)));
    write(&ledger).await;
    assert_eq!(ledger.grant(&owner(), &monthly, &request("p", 3)).await.unwrap().result, Err(Refusal::Exhausted));
    assert!(ledger.is_exhausted(&monthly, span));
}
