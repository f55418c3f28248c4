//! Reconciles against a fake API server.

use super::*;

use super::state::budget_state;
use super::state::tests::{SPAN, book, budget as example};
use crate::controllers::tenant::tests::tenant;
use crate::testing::TestContext;

const BUDGET: &str = "/apis/mcp-fleet.dev/v1alpha1/namespaces/acme/mcpbudgets/daily";

fn budget() -> MCPBudget {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPBudget",
        "metadata": {"name": "daily", "namespace": "acme", "uid": "b-1", "generation": 1},
        "spec": {"period": "Day", "amount": "5.00"},
    }))
    .unwrap()
}

#[tokio::test]
async fn a_budget_in_an_unclaimed_namespace_only_gets_a_status() {
    let test = TestContext::new();
    assert_eq!(test.reconcile::<Budgets>(&budget()).await, ["PUT mcpbudgets/daily/status"]);
    assert_eq!(test.condition(BUDGET, "Ready").1, "NamespaceUnclaimed");
}

#[tokio::test]
async fn the_status_of_a_budget_shows_what_the_ledger_holds() {
    let mut test = TestContext::new();
    test.add_tenant(&tenant());
    let state = budget_state(&example(Some(100), None), SPAN, Some(&book()), true);
    test.ctx.shared_state.budgets.set("b-1", state);
    assert_eq!(test.reconcile::<Budgets>(&budget()).await, ["PUT mcpbudgets/daily/status"]);
    assert_eq!(test.condition(BUDGET, "Exhausted").1, "LimitReached");
    let status = test.api.get(BUDGET).unwrap()["status"].clone();
    assert_eq!((&status["spent"], &status["remaining"]), (&"0.00003".into(), &"0.00004".into()));
}

#[tokio::test]
async fn a_budget_that_comes_near_its_limit_is_announced() {
    let mut test = TestContext::new();
    test.add_tenant(&tenant());
    let mut object = budget();
    object.spec.amount = "0.00005".parse().ok();
    object.spec.warn_at_percent = Some(60);
    let state = budget_state(&example(Some(50), None), SPAN, Some(&book()), false);
    test.ctx.shared_state.budgets.set("b-1", state);
    test.reconcile::<Budgets>(&object).await;
    let events = test.api.take_events();
    assert!(events.contains(&"WarningReached".to_owned()), "{events:?}");
}
