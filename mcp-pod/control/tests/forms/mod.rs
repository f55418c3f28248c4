//! Tests of the two forms of a policy: what is shared, and what a reader rejects.

use std::sync::Arc;

use mcp_fleet_control::convert::{ConvertError, MAX_HELD, from_wire, to_wire};
use mcp_fleet_control::{DecodeError, Form, decode, encode, encode_as, feature, wire};
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Polls};
use mcp_fleet_policy::model::{
    Argument, Breaker, Grant, GrantedTool, PathRule, Principal, PrincipalLimits, Rule, Server, ServerLimits,
    TenantPolicy, Tool,
};
use mcp_fleet_policy::units::{Bytes, Micros};
use prost::Message as _;

use super::plain;

fn path(within: &str) -> Vec<Argument> {
    let rule = Rule::Path(PathRule { within: vec![within.into()], extensions: vec![], dotfiles: false });
    vec![Argument { name: "path".into(), required: true, rule, shown: None }]
}

/// A policy with two servers of equal tools, and principals that hold two scopes with equal arguments each. Nothing is
/// shared in it.
pub(super) fn repetitive(principals: usize) -> TenantPolicy {
    let server = |name: &str| Server {
        name: name.into(),
        uid: format!("s-{name}"),
        addresses: vec![],
        identity: "spiffe://x".into(),
        tools: vec![Tool {
            name: "read".into(),
            class: Class::Read,
            arguments: path("/workspace").into(),
            price: Micros::ZERO,
            result_price: None,
            polls: Polls::Limited,
            shown: None,
            definition: None,
            alias: None,
        }],
        limits: ServerLimits {
            timeout: std::time::Duration::from_secs(30),
            max_request: Bytes::new(1),
            max_response: Bytes::new(1),
            max_concurrent_calls: 1,
        },
        breaker: Breaker::DEFAULT,
        loops: LoopSettings::DEFAULT,
    };
    let grant = |server: &str| Grant {
        scope: format!("{server}-reports"),
        server_uid: format!("s-{server}"),
        tools: vec![GrantedTool { name: "read".into(), arguments: Some(path("/workspace/reports").into()) }],
        classes: vec![],
    };
    let principal = |number: usize| Principal {
        namespace: "acme".into(),
        name: format!("agent-{number}"),
        uid: format!("p-{number}"),
        suspended: false,
        revoked_until: None,
        breakers_cleared: None,
        grants: vec![Arc::new(grant("one")), Arc::new(grant("two"))],
        limits: PrincipalLimits::default(),
    };
    TenantPolicy {
        servers: vec![server("one"), server("two")],
        principals: (0..principals).map(principal).collect(),
        ..plain()
    }
}

fn rejection(change: impl FnOnce(&mut wire::Policy)) -> DecodeError {
    let mut message = to_wire(&repetitive(2), Form::Shared);
    change(&mut message);
    decode(&message.encode_to_vec()).unwrap_err()
}

fn invalid(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Convert(ConvertError::Invalid { field, .. }) => field,
        other => panic!("rejected with {other:?}"),
    }
}

#[test]
fn equal_parts_are_written_once() {
    let message = to_wire(&repetitive(100), Form::Shared);
    assert_eq!((message.argument_lists.len(), message.grants.len()), (2, 2));
    assert_eq!(message.principals[99].held, [0, 1]);
    let size = |principals| encode(&repetitive(principals)).bytes.len();
    let per_principal = (size(1100) - size(100)) / 1000;
    assert!(per_principal < 40, "{per_principal} bytes");
    let expanded = encode_as(&repetitive(100), Form::Expanded).bytes.len();
    assert!(expanded > 3 * size(100), "{expanded} bytes");
}

#[test]
fn equal_parts_are_shared_in_memory_whatever_the_form() {
    for form in [Form::Expanded, Form::Shared] {
        let policy = decode(&encode_as(&repetitive(2), form).bytes).unwrap().policy;
        let [one, two] = policy.principals.as_slice() else { panic!() };
        assert!(Arc::ptr_eq(&one.grants[0], &two.grants[0]), "{form:?}");
        let list = |grant: &Grant| Arc::clone(grant.tools[0].arguments.as_ref().unwrap());
        assert!(Arc::ptr_eq(&list(&one.grants[0]), &list(&one.grants[1])), "{form:?}");
        assert!(Arc::ptr_eq(&policy.servers[0].tools[0].arguments, &policy.servers[1].tools[0].arguments), "{form:?}");
    }
}

#[test]
fn only_the_shared_form_requires_the_feature() {
    let features = |form| to_wire(&repetitive(1), form).required_features;
    let shared = |features: Vec<String>| features.iter().any(|name| name == "shared");
    assert!(shared(features(Form::Shared)) && !shared(features(Form::Expanded)));
    assert_eq!(Form::for_reader(&feature::known()), Form::Shared);
    assert_eq!(Form::for_reader(&["v1", "budgets", "scope-arguments", "path-rules", "nested-rules"]), Form::Expanded);
}

#[test]
fn the_expanded_form_has_nothing_that_older_readers_do_not_know() {
    // Neither the tables nor a position in them.
    let message = to_wire(&repetitive(2), Form::Expanded);
    assert_eq!((message.argument_lists.len(), message.grants.len()), (0, 0));
    assert!(message.principals.iter().all(|principal| principal.held.is_empty() && principal.grants.len() == 2));
    let granted = message.principals.iter().flat_map(|principal| &principal.grants).flat_map(|grant| &grant.tools);
    assert!(granted.map(|tool| tool.argument_list).all(|list| list.is_none()));
    assert!(message.servers.iter().flat_map(|server| &server.tools).all(|tool| tool.argument_list.is_none()));
}

#[test]
fn positions_outside_of_a_table_are_rejected() {
    assert_eq!(invalid(&rejection(|policy| policy.principals[0].held[0] = 2)), "principal.held");
    assert_eq!(invalid(&rejection(|policy| policy.principals[0].held[0] = u32::MAX)), "principal.held");
    assert_eq!(invalid(&rejection(|policy| policy.grants[0].tools[0].argument_list = Some(2))), "argument_list");
    assert_eq!(invalid(&rejection(|policy| policy.servers[0].tools[0].argument_list = Some(2))), "argument_list");
}

#[test]
fn a_table_that_is_not_canonical_is_rejected() {
    type Change = fn(&mut wire::Policy);
    let changes: [(&str, Change); 6] = [
        ("a grant that nobody holds", |policy| policy.principals.iter_mut().for_each(|one| one.held.truncate(1))),
        ("a grant twice", |policy| {
            policy.grants.push(policy.grants[0].clone());
            policy.principals[1].held[0] = 2;
        }),
        ("another order", |policy| {
            policy.grants.reverse();
            policy.principals.iter_mut().for_each(|principal| principal.held.reverse());
        }),
        ("a list that no tool has", |policy| policy.argument_lists.push(wire::ArgumentList::default())),
        ("a grant in a principal", |policy| {
            let grant = policy.grants[0].clone();
            policy.principals[0].grants.push(grant);
        }),
        ("arguments in a tool", |policy| {
            let items = policy.argument_lists[0].items.clone();
            policy.servers[0].tools[0].arguments = items;
        }),
    ];
    for (what, change) in changes {
        assert!(matches!(rejection(change), DecodeError::NotUnderstood), "{what}");
    }
}

#[test]
fn the_number_of_held_grants_is_bounded() {
    let hold = |number| move |policy: &mut wire::Policy| policy.principals[0].held = vec![0; number];
    let mut message = to_wire(&repetitive(2), Form::Shared);
    hold(MAX_HELD)(&mut message);
    assert!(from_wire(message).is_ok());
    assert_eq!(invalid(&rejection(hold(MAX_HELD + 1))), "principal.held");
    // A small message cannot expand to a large policy by referring to the same grant again and again.
    let many = rejection(|policy| {
        policy.principals[0].held = vec![0; MAX_HELD];
        policy.principals = vec![policy.principals[0].clone(); 8193];
    });
    assert_eq!(invalid(&many), "principals");
}
