//! Reconciles against a fake API server.

use mcp_fleet_core::ledger::period::Span;
use mcp_fleet_crds::names::TOP_UP;
use mcp_fleet_policy::model::{Budget, TopUp};

use super::state::budget_state;
use super::state::tests::{SPAN, book, budget as example};
use super::*;
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

#[tokio::test]
async fn who_topped_up_a_budget_is_announced_once() {
    let mut test = TestContext::new();
    test.add_tenant(&tenant());
    let now = jiff::Timestamp::now();
    let (start, end) = mcp_fleet_policy::model::Period::Day.bounds(now);
    let span = Span { start: start.as_second(), end: end.as_second() };
    let top_up = TopUp { start: span.start, amount: "2".parse().unwrap(), calls: 0 };
    let topped_up = Budget { top_up: Some(top_up), ..example(Some(5_000_000), None) };
    test.ctx.shared_state.budgets.set("b-1", budget_state(&topped_up, span, None, false));
    let mut object = budget();
    object.metadata.annotations = Some([(TOP_UP.to_owned(), format!("{now} amount=2"))].into());
    let live = serde_json::json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPBudget", "spec": object.spec,
        "metadata": {"name": "daily", "namespace": "acme", "uid": "b-1", "managedFields": [{
            "manager": "on-call", "fieldsV1": {"f:metadata": {"f:annotations": {format!("f:{TOP_UP}"): {}}}}}]},
    });
    test.api.insert(BUDGET, live);
    test.reconcile::<Budgets>(&object).await;
    assert_eq!(test.condition(BUDGET, "ToppedUp").1, "TopUpApplied");
    let events = test.api.take_events();
    assert!(events.contains(&"TopUpApplied".to_owned()), "{events:?}");
    object.status = serde_json::from_value(test.api.get(BUDGET).unwrap()["status"].clone()).unwrap();
    test.reconcile::<Budgets>(&object).await;
    assert!(!test.api.take_events().contains(&"TopUpApplied".to_owned()));
}
