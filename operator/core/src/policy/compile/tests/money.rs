//! Prices and budgets.

use super::*;

#[test]
fn a_price_without_a_currency_is_rejected() {
    let mut inputs = inputs();
    Arc::make_mut(&mut inputs.tenant).spec.spend_limit = None;
    let compiled = compile(&inputs, None);
    assert_eq!(reason(&compiled, Kind::Server, "files"), Some(ConditionReason::CurrencyMissing));
    assert_eq!(reason(&compiled, Kind::Budget, "daily"), Some(ConditionReason::CurrencyMissing));
    assert_eq!(compiled.policy.servers, []);
}

#[test]
fn the_spend_limit_stays_in_force_while_tools_have_prices() {
    let mut inputs = inputs();
    Arc::make_mut(&mut inputs.tenant).spec.spend_limit = None;
    let compiled = compile(&inputs, Some(&previous()));
    assert_eq!(reason(&compiled, Kind::Tenant, "acme"), Some(ConditionReason::CurrencyMissing));
    assert_eq!(compiled.policy.budgets[0], previous().policy.budgets[0]);
    inputs.servers = vec![server(&json!([{"name": "read", "class": "Read"}]))];
    let compiled = compile(&inputs, Some(&previous()));
    assert_eq!((reason(&compiled, Kind::Tenant, "acme"), compiled.policy.currency), (None, None));
}

#[test]
fn a_budget_for_a_missing_principal_still_applies_to_the_others() {
    let mut inputs = inputs();
    let spec = |names: &[&str], amount: &str| {
        let refs: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        object("MCPBudget", "daily", &json!({"selector": {"principalRefs": refs}, "period": "Day", "amount": amount}))
    };
    inputs.budgets = vec![spec(&["coder", "typo"], "5.00")];
    let compiled = compile(&inputs, None);
    assert_eq!(reason(&compiled, Kind::Budget, "daily"), Some(ConditionReason::TargetNotFound));
    assert_eq!(compiled.policy.budgets[1].selector.principals, Some(vec!["uid-coder".to_owned()]));
    inputs.budgets = vec![spec(&["typo"], "900.00")];
    assert_eq!(
        compile(&inputs, None).policy.budgets[1].selector.principals,
        Some(vec![]),
        "it covers no principals, not all of them"
    );
    let compiled = compile(&inputs, Some(&previous()));
    assert_eq!(compiled.policy.budgets[1], previous().policy.budgets[1], "the previous budget stays in force");
}

#[test]
fn of_too_many_budgets_the_oldest_are_in_force() {
    let budget = |number: usize, day: usize| {
        let mut budget: Arc<MCPBudget> =
            object("MCPBudget", &format!("b-{number:03}"), &json!({"period": "Day", "calls": 5}));
        let created = format!("2026-11-{day:02}T00:00:00Z").parse().unwrap();
        Arc::make_mut(&mut budget).metadata.creation_timestamp = Some(Time(created));
        budget
    };
    let names = |compiled: &Compiled| -> Vec<String> {
        compiled.policy.budgets.iter().skip(1).map(|budget| budget.name.clone()).collect()
    };
    let mut inputs = inputs();
    // The budget whose name comes first is the youngest.
    inputs.budgets = (0..257).map(|number| budget(number, if number == 0 { 9 } else { 1 })).collect();
    let compiled = compile(&inputs, None);
    assert_eq!(names(&compiled), (1..257).map(|number| format!("b-{number:03}")).collect::<Vec<_>>());
    assert_eq!(reason(&compiled, Kind::Budget, "b-000"), Some(ConditionReason::TooManyBudgets));
    assert_eq!(reason(&compiled, Kind::Budget, "b-001"), None);

    // When one is deleted, the youngest takes its place, and keeps it, even if another is created in the same second.
    inputs.budgets.remove(5);
    let compiled = compile(&inputs, Some(&published(&compiled)));
    assert!(names(&compiled).contains(&"b-000".to_owned()) && !names(&compiled).contains(&"b-005".to_owned()));
    inputs.budgets.push(budget(5, 1));
    let compiled = compile(&inputs, Some(&published(&compiled)));
    assert_eq!(reason(&compiled, Kind::Budget, "b-005"), Some(ConditionReason::TooManyBudgets));
    assert_eq!(names(&compiled).len(), 256);
}
