#![allow(clippy::unwrap_used)]

mod money;
mod tenant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Argument, Grant, Principal, Rule};
use mcp_fleet_policy::units::Micros;
use serde_json::{Value, json};

use super::*;
pub(super) use crate::testing::{NOW, catalogue, inputs, object, previous, published, server, tenant};
use crate::testing::{path, principal, scope};

pub(super) fn compile(inputs: &TenantInputs, previous: Option<&Previous>) -> Compiled {
    super::compile(inputs, previous, Limit::DEFAULT)
}

pub(super) fn reason(compiled: &Compiled, kind: Kind, name: &str) -> Option<ConditionReason> {
    let verdict = &compiled.verdicts[&(kind, format!("uid-{name}"))];
    (!verdict.ok).then_some(verdict.reason)
}

pub(super) fn coder(compiled: &Compiled) -> &Principal {
    &compiled.policy.principals[0]
}

pub(super) fn grant<'a>(compiled: &'a Compiled, scope: &str) -> Option<&'a Grant> {
    coder(compiled).grants.iter().map(|grant| &**grant).find(|grant| grant.scope == scope)
}

#[test]
fn consistent_objects_compile_and_every_verdict_is_ok() {
    let compiled = compile(&inputs(), None);
    assert!(compiled.verdicts.values().all(|verdict| verdict.ok), "{:?}", compiled.verdicts);
    assert_eq!(compiled.verdicts.len(), 5);
    let policy = &compiled.policy;
    assert_eq!((policy.tenant.as_str(), policy.tenant_uid.as_str(), policy.suspended), ("acme", "uid-acme", false));
    assert_eq!(policy.currency.as_ref().unwrap().as_str(), "USD");
    assert_eq!(policy.servers[0].addresses, ["10.244.0.7:8443".parse().unwrap()]);
    assert_eq!(policy.servers[0].identity, "spiffe://mcp-fleet.dev/tenant/uid-acme/server/uid-files");
    assert_eq!(policy.servers[0].tools[0].price, Micros::new(1000));
    let grant = grant(&compiled, "reports").unwrap();
    assert_eq!((grant.server_uid.as_str(), grant.classes.as_slice()), ("uid-files", &[Class::Read][..]));
    let [spend_limit, daily] = policy.budgets.as_slice() else { panic!("{:?}", policy.budgets) };
    assert_eq!((spend_limit.name.as_str(), spend_limit.uid.as_str()), (SPEND_LIMIT, "uid-acme"));
    assert_eq!(spend_limit.selector, Selector::default());
    assert_eq!(daily.selector.principals, Some(vec!["uid-coder".to_owned()]));
    assert_eq!(daily.selector.classes, Some(vec![Class::Read, Class::Write]));
}

#[test]
fn a_compiled_policy_survives_encoding_and_decoding() {
    let mut policy = compile(&inputs(), None).policy;
    policy.generation = 1;
    let encoded = mcp_fleet_control::encode(&policy);
    assert_eq!(mcp_fleet_control::decode(&encoded.bytes).unwrap().policy, policy);
}

#[test]
fn the_order_of_the_objects_does_not_matter() {
    let mut inputs = inputs();
    inputs.servers.push(object(
        "MCPServer",
        "time",
        &json!({
        "source": {"type": "Stdio", "stdio": {"image": "mcp-fleet.local/time:dev", "command": ["time"]}}}),
    ));
    inputs.principals.push(object("MCPPrincipal", "auditor", &json!({})));
    inputs.keys.push(VerificationKey { kid: "a".into(), point: vec![4; 65] });
    let one = compile(&inputs, None).policy;
    inputs.servers.reverse();
    inputs.principals.reverse();
    inputs.keys.reverse();
    assert_eq!(compile(&inputs, None).policy, one);
}

#[test]
fn a_new_principal_with_an_unknown_scope_has_no_grants() {
    let mut inputs = inputs();
    inputs.principals = vec![principal(&json!({"scopeRefs": [{"name": "reports"}, {"name": "typo"}]}))];
    let compiled = compile(&inputs, None);
    assert_eq!(reason(&compiled, Kind::Principal, "coder"), Some(ConditionReason::ScopeNotFound));
    assert_eq!(coder(&compiled).grants, []);
}

#[test]
fn a_principal_that_gains_an_unknown_scope_only_keeps_its_grants() {
    let mut inputs = inputs();
    inputs.scopes.push(scope("all", &json!({"serverRef": {"name": "files"}, "classes": ["Write"]})));
    let refs = json!([{"name": "reports"}, {"name": "all"}, {"name": "typo"}]);
    inputs.principals = vec![principal(&json!({"scopeRefs": refs, "limits": {"callsPerMinute": 6000}}))];
    let compiled = compile(&inputs, Some(&previous()));
    let scopes: Vec<&str> = coder(&compiled).grants.iter().map(|grant| grant.scope.as_str()).collect();
    assert_eq!(scopes, ["reports"]);
    assert_eq!(coder(&compiled).limits.calls_per_minute, None);
}

#[test]
fn a_scope_removed_from_a_principal_is_gone_even_in_a_rejected_edit() {
    let mut inputs = inputs();
    inputs.principals = vec![principal(&json!({"scopeRefs": [{"name": "typo"}]}))];
    assert_eq!(coder(&compile(&inputs, Some(&previous()))).grants, []);
}

#[test]
fn suspension_and_revocation_apply_even_in_a_rejected_edit() {
    let mut inputs = inputs();
    inputs.principals = vec![principal(&json!({
        "scopeRefs": [{"name": "typo"}], "suspend": true, "revokeIssuedBefore": "2026-11-10T00:00:00.9Z"}))];
    let compiled = compile(&inputs, Some(&previous()));
    assert!(coder(&compiled).suspended);
    let day = "2026-11-10T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!(coder(&compiled).revoked_until, Some(day));
}

#[test]
fn a_revocation_never_moves_back() {
    let mut inputs = inputs();
    inputs.principals = vec![principal(&json!({"revokeIssuedBefore": "2026-11-10T00:00:00Z"}))];
    let previous = published(&compile(&inputs, None));
    let day = coder(&compile(&inputs, None)).revoked_until;
    for spec in [json!({}), json!({"revokeIssuedBefore": "2026-11-09T00:00:00Z"})] {
        inputs.principals = vec![principal(&spec)];
        assert_eq!(coder(&compile(&inputs, Some(&previous))).revoked_until, day);
    }
    inputs.revocations.insert("uid-coder".into(), NOW - 1);
    assert_eq!(coder(&compile(&inputs, Some(&previous))).revoked_until, Some(NOW - 1));
}

#[test]
fn a_revocation_in_the_future_waits_until_it_is_due() {
    let mut inputs = inputs();
    let due = "2026-11-30T00:00:00Z";
    inputs.principals = vec![principal(&json!({"revokeIssuedBefore": due}))];
    let compiled = compile(&inputs, None);
    let due = due.parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!((coder(&compiled).revoked_until, compiled.recheck_at), (None, Some(due)));
    inputs.now = due;
    let compiled = compile(&inputs, None);
    assert_eq!((coder(&compiled).revoked_until, compiled.recheck_at), (Some(due), None));
}

#[test]
fn a_rejected_scope_gets_the_reason() {
    let cases = [
        (json!({"serverRef": {"name": "typo"}}), ConditionReason::ServerNotFound),
        (json!({"serverRef": {"name": "files"}, "tools": [{"name": "typo"}]}), ConditionReason::ToolNotFound),
        (
            json!({"serverRef": {"name": "files"}, "tools": [{"name": "write", "arguments": [path("/workspace")]}]}),
            ConditionReason::InvalidSpec,
        ),
        (
            json!({"serverRef": {"name": "files"}, "tools": [{"name": "read", "arguments": [
                path("/workspace"), {"name": "head", "type": "Boolean"}]}]}),
            ConditionReason::ToolNotFound,
        ),
        (
            json!({"serverRef": {"name": "files"}, "tools": [{"name": "read", "arguments": [
                {"name": "path", "type": "Integer", "integer": {"minimum": 0, "maximum": 1}}]}]}),
            ConditionReason::InvalidSpec,
        ),
    ];
    for (spec, wanted) in cases {
        let mut inputs = inputs();
        inputs.scopes = vec![scope("reports", &spec)];
        let compiled = compile(&inputs, None);
        assert_eq!(reason(&compiled, Kind::Scope, "reports"), Some(wanted), "{spec}");
        assert_eq!(coder(&compiled).grants, [], "{spec}");
        assert_eq!(reason(&compiled, Kind::Principal, "coder"), Some(ConditionReason::ScopeNotFound));
    }
}

#[test]
fn an_empty_argument_list_allows_no_arguments_and_an_absent_one_all() {
    let mut inputs = inputs();
    inputs.servers = vec![server(&json!([{"name": "now", "class": "Read", "arguments": [
        {"name": "zone", "type": "String", "string": {"maxLength": 9}}]}]))];
    for (tool, wanted) in [(json!({"name": "now", "arguments": []}), Some(vec![])), (json!({"name": "now"}), None)] {
        inputs.scopes = vec![scope("reports", &json!({"serverRef": {"name": "files"}, "tools": [tool]}))];
        assert_eq!(
            grant(&compile(&inputs, None), "reports").unwrap().tools[0].arguments.as_deref().map(<[_]>::to_vec),
            wanted
        );
    }
}

#[test]
fn a_rejected_edit_of_a_scope_keeps_in_force_what_it_still_contains() {
    let mut inputs = inputs();
    let tools = json!([{"name": "read"}, {"name": "typo"}]);
    inputs.scopes =
        vec![scope("reports", &json!({"serverRef": {"name": "files"}, "tools": tools, "classes": ["Write"]}))];
    let compiled = compile(&inputs, Some(&previous()));
    let grant = grant(&compiled, "reports").unwrap();
    let [Argument { rule: Rule::Path(rule), .. }] = grant.tools[0].arguments.as_deref().unwrap() else { panic!() };
    assert_eq!(rule.within, ["/workspace/reports"], "a rejected edit widened the grant");
    assert_eq!(grant.classes, [], "Read was removed and Write is not granted yet");
}

#[test]
fn a_tool_entry_is_kept_while_its_class_would_grant_more() {
    let mut inputs = inputs();
    let spec = json!({"serverRef": {"name": "files"}, "tools": [{"name": "typo"}], "classes": ["Read"]});
    inputs.scopes = vec![scope("reports", &spec)];
    let compiled = compile(&inputs, Some(&previous()));
    assert_eq!(grant(&compiled, "reports").unwrap().tools[0].name, "read");
    let spec = json!({"serverRef": {"name": "files"}, "tools": [{"name": "typo"}]});
    inputs.scopes = vec![scope("reports", &spec)];
    let compiled = compile(&inputs, Some(&previous()));
    assert_eq!(grant(&compiled, "reports").unwrap().tools, []);
}

#[test]
fn a_rejected_scope_that_was_recreated_inherits_nothing() {
    let mut inputs = inputs();
    let mut recreated = (*scope("reports", &json!({"serverRef": {"name": "typo"}}))).clone();
    recreated.metadata.uid = Some("uid-other".into());
    inputs.scopes = vec![Arc::new(recreated)];
    assert_eq!(coder(&compile(&inputs, Some(&previous()))).grants, []);
}

#[test]
fn a_deleted_server_removes_its_grants() {
    let mut inputs = inputs();
    inputs.servers.clear();
    let compiled = compile(&inputs, Some(&previous()));
    assert_eq!((compiled.policy.servers.len(), coder(&compiled).grants.len()), (0, 0));
    assert_eq!(reason(&compiled, Kind::Scope, "reports"), Some(ConditionReason::ServerNotFound));
}

#[test]
fn objects_that_are_being_deleted_no_longer_count() {
    let mut inputs = inputs();
    let delete = |meta: &mut kube::core::ObjectMeta| {
        meta.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-10T00:00:00Z")).unwrap());
    };
    delete(&mut Arc::make_mut(&mut inputs.principals[0]).metadata);
    assert_eq!(compile(&inputs, Some(&previous())).policy.principals, []);
    delete(&mut Arc::make_mut(&mut inputs.servers[0]).metadata);
    assert_eq!(compile(&inputs, Some(&previous())).policy.servers, []);
    delete(&mut Arc::make_mut(&mut inputs.budgets[0]).metadata);
    assert_eq!(compile(&inputs, Some(&previous())).policy.budgets.len(), 2, "a budget applies until it is gone");
    delete(&mut Arc::make_mut(&mut inputs.tenant).metadata);
    assert!(compile(&inputs, Some(&previous())).policy.suspended);
}

#[test]
fn a_server_with_a_forbidden_image_keeps_its_old_tools_minus_removed_ones() {
    let mut inputs = inputs();
    let bad = json!({
        "source": {"type": "Stdio", "stdio": {"image": "evil.example.com/files", "command": ["files"]}},
        "tools": [catalogue()[0], {"name": "new", "class": "Read"}],
    });
    inputs.servers = vec![object("MCPServer", "files", &bad)];
    let compiled = compile(&inputs, Some(&previous()));
    assert_eq!(reason(&compiled, Kind::Server, "files"), Some(ConditionReason::ImageNotAllowed));
    let tools: Vec<&str> = compiled.policy.servers[0].tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(tools, ["read"]);
    assert_eq!(compile(&inputs, None).policy.servers, []);
}

#[test]
fn a_scope_that_uses_the_name_for_agents_is_told_the_name_of_the_tool() {
    let mut inputs = inputs();
    Arc::make_mut(&mut inputs.servers[0]).spec.tools[0].alias = Some("look".into());
    inputs.scopes = vec![scope("reports", &json!({"serverRef": {"name": "files"}, "tools": [{"name": "look"}]}))];
    let compiled = compile(&inputs, None);
    let verdict = compiled.verdicts.iter().find(|((kind, _), _)| *kind == Kind::Scope).unwrap().1;
    assert_eq!((verdict.ok, verdict.reason), (false, ConditionReason::ToolNotFound));
    assert!(
        verdict.message.ends_with("it is the `as` of tool \"read\", whose name scopes have to use"),
        "{}",
        verdict.message
    );
}
