//! What the spec of the tenant itself decides.

use super::*;

#[test]
fn a_tenant_that_was_recreated_inherits_nothing() {
    let mut inputs = inputs();
    inputs.scopes = vec![scope("reports", &json!({"serverRef": {"name": "typo"}}))];
    let mut previous = previous();
    Arc::make_mut(&mut previous.policy).tenant_uid = "uid-old".into();
    let compiled = compile(&inputs, Some(&previous));
    assert_eq!((coder(&compiled).grants.len(), compiled.policy.generation), (0, 0));
}

#[test]
fn a_suspension_stops_everything_and_built_in_tools_can_be_disabled() {
    let mut inputs = inputs();
    inputs.tenant = tenant(&json!({"suspend": true, "builtInTools": "Disabled"}));
    let policy = compile(&inputs, Some(&previous())).policy;
    assert!(policy.suspended && !policy.built_in_tools && previous().policy.built_in_tools);
}

#[test]
fn the_origins_of_the_tenant_are_those_of_the_policy() {
    let mut inputs = inputs();
    assert!(compile(&inputs, None).policy.allowed_origins.is_empty());
    inputs.tenant = tenant(&json!({"endpoint": {"allowedOrigins": ["https://app.example.com"]}}));
    assert_eq!(compile(&inputs, Some(&previous())).policy.allowed_origins, ["https://app.example.com"]);
}
