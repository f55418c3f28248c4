//! What of a policy is in force when it is full.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mcp_fleet_control::snapshot::CompressedPolicy;
use mcp_fleet_crds::{MCPPrincipal, MCPScope};
use serde_json::{Value, json};

use super::super::tests::{NOW, inputs, object, published, reason};
use super::super::{compile, is_alive};
use super::*;

/// Sets the day of creation.
fn created<K: ResourceExt + Clone>(object: Arc<K>, day: u32) -> Arc<K> {
    let mut object = Arc::unwrap_or_clone(object);
    let time = format!("2026-11-{day:02}T00:00:00Z").parse().unwrap();
    object.meta_mut().creation_timestamp = Some(Time(time));
    Arc::new(object)
}

fn principal(name: &str, scopes: &[&str], day: u32) -> Arc<MCPPrincipal> {
    let refs: Vec<Value> = scopes.iter().map(|scope| json!({"name": scope})).collect();
    created(object("MCPPrincipal", name, &json!({"scopeRefs": refs})), day)
}

/// A scope of `size` bytes or somewhat more.
fn scope(name: &str, size: usize, day: u32) -> Arc<MCPScope> {
    let values: Vec<String> = (0..size / 100).map(|number| format!("/workspace/{name}/{number:0>100}")).collect();
    let argument = json!({"name": "path", "required": true, "type": "Enum", "enum": {"values": values}});
    let tools = json!([{"name": "read", "arguments": [argument]}]);
    created(object("MCPScope", name, &json!({"serverRef": {"name": "files"}, "tools": tools})), day)
}

/// Inputs with three scopes of 2,000 bytes, each held by a principal, created on the first three days.
fn three() -> TenantInputs {
    let names = ["one", "two", "three"];
    TenantInputs {
        scopes: (1..).zip(names).map(|(day, name)| scope(name, 2000, day)).collect(),
        principals: (1..).zip(names).map(|(day, name)| principal(&format!("p-{name}"), &[name], day)).collect(),
        budgets: vec![],
        ..inputs()
    }
}

fn size(compiled: &Compiled) -> usize {
    mcp_fleet_control::encoded_size(&compiled.policy)
}

/// A limit that leaves this much room above a policy.
fn above(compiled: &Compiled, new: usize, changed: usize) -> Limit {
    Limit { new: size(compiled) + new, changed: size(compiled) + changed }
}

fn held(compiled: &Compiled, principal: &str) -> Option<Vec<String>> {
    let principal = compiled.policy.principals.iter().find(|known| known.name == principal)?;
    Some(principal.grants.iter().map(|grant| grant.scope.clone()).collect())
}

#[test]
fn the_newest_objects_are_refused_and_everything_else_is_published() {
    let mut inputs = three();
    let whole = compile(&inputs, None, Limit::DEFAULT);
    let limit = Limit { new: size(&whole) - 1000, changed: size(&whole) };
    let compiled = compile(&inputs, None, limit);
    assert!(size(&compiled) <= limit.new);
    assert_eq!(reason(&compiled, Kind::Scope, "three"), Some(ConditionReason::PolicyTooLarge));
    assert_eq!(reason(&compiled, Kind::Principal, "p-three"), Some(ConditionReason::ScopeNotFound));
    for name in ["one", "two"] {
        assert_eq!(reason(&compiled, Kind::Scope, name), None);
        assert_eq!(held(&compiled, &format!("p-{name}")), Some(vec![name.to_owned()]));
    }
    let verdict = &compiled.verdicts[&(Kind::Scope, "uid-three".to_owned())];
    assert!(verdict.message.contains("4 MiB") && verdict.message.contains("needs 3 KiB"), "{}", verdict.message);
    // Neither the order of the objects nor a second compilation changes that.
    inputs.scopes.reverse();
    inputs.principals.reverse();
    assert_eq!(compile(&inputs, None, limit).policy, compiled.policy);
    let again = compile(&inputs, Some(&published(&compiled)), limit);
    assert_eq!((&again.policy.principals, &again.verdicts), (&compiled.policy.principals, &compiled.verdicts));
    // When another object is deleted, there is room.
    inputs.scopes.retain(|scope| scope.name_any() != "one");
    inputs.principals.retain(|principal| principal.name_any() != "p-one");
    let compiled = compile(&inputs, Some(&published(&compiled)), limit);
    assert_eq!(held(&compiled, "p-three"), Some(vec!["three".to_owned()]));
}

#[test]
fn of_objects_of_one_time_the_names_decide() {
    let mut inputs = three();
    inputs.scopes = inputs.scopes.into_iter().map(|scope| created(scope, 7)).collect();
    inputs.principals = inputs.principals.into_iter().map(|principal| created(principal, 7)).collect();
    let limit = Limit { new: size(&compile(&inputs, None, Limit::DEFAULT)) - 1000, changed: usize::MAX };
    let compiled = compile(&inputs, None, limit);
    assert_eq!(reason(&compiled, Kind::Scope, "two"), Some(ConditionReason::PolicyTooLarge));
}

#[test]
fn a_full_policy_can_always_be_restricted() {
    let mut inputs = three();
    let whole = compile(&inputs, None, Limit::DEFAULT);
    let (previous, full) = (published(&whole), above(&whole, 0, 0));
    let revoked = json!({
        "scopeRefs": [{"name": "one"}], "suspend": true, "revokeIssuedBefore": "2026-11-10T00:00:00Z",
        "limits": {"callsPerMinute": 60, "burst": 10, "maxConcurrentCalls": 4},
    });
    inputs.principals[0] = created(object("MCPPrincipal", "p-one", &revoked), 1);
    inputs.principals[1] = principal("p-two", &[], 2);
    // A new object arrives at the same time, and is the only one that is refused.
    inputs.principals.push(principal("p-new", &["one"], 9));
    inputs.scopes.push(scope("new", 9000, 9));
    inputs.principals.push(principal("p-other", &["new"], 9));
    let compiled = compile(&inputs, Some(&previous), full);
    let one = compiled.policy.principals.iter().find(|principal| principal.name == "p-one").unwrap();
    assert!(one.suspended && one.revoked_until.is_some_and(|until| until < NOW));
    assert_eq!((one.limits.calls_per_minute, held(&compiled, "p-two")), (Some(60), Some(vec![])));
    assert_eq!(reason(&compiled, Kind::Principal, "p-one"), None);
    assert_eq!(reason(&compiled, Kind::Scope, "new"), Some(ConditionReason::PolicyTooLarge));
    inputs.servers.clear();
    assert_eq!(compile(&inputs, Some(&previous), full).policy.servers, []);
}

#[test]
fn a_change_that_does_not_fit_keeps_what_was_in_force() {
    let mut inputs = three();
    let whole = compile(&inputs, None, Limit::DEFAULT);
    let previous = published(&whole);
    inputs.scopes[0] = scope("one", 9000, 1);
    inputs.principals[1] = principal("p-two", &["two", "three"], 2);
    let compiled = compile(&inputs, Some(&previous), above(&whole, 0, 1000));
    assert_eq!(reason(&compiled, Kind::Scope, "one"), Some(ConditionReason::PolicyTooLarge));
    let grant = |compiled: &Compiled| {
        let held = compiled.policy.principals.iter().flat_map(|principal| &principal.grants);
        held.filter(|grant| grant.scope == "one").map(|grant| (**grant).clone()).collect::<Vec<_>>()
    };
    assert_eq!(grant(&compiled), grant(&whole));
    assert_eq!(held(&compiled, "p-two"), Some(vec!["three".to_owned(), "two".to_owned()]), "it still fits");
    // Changes may use room that new objects may not.
    let limit = above(&whole, 0, 20_000);
    inputs.scopes.push(scope("new", 100, 9));
    inputs.principals.push(principal("p-new", &["new"], 9));
    let compiled = compile(&inputs, Some(&previous), limit);
    assert_eq!(reason(&compiled, Kind::Scope, "one"), None);
    assert_eq!(reason(&compiled, Kind::Scope, "new"), Some(ConditionReason::PolicyTooLarge));
}

#[test]
fn a_principal_that_does_not_fit_gains_nothing_and_keeps_the_rest() {
    let mut inputs = three();
    inputs.principals.pop();
    let whole = compile(&inputs, None, Limit::DEFAULT);
    // The scope is new in the policy, because nobody held it.
    inputs.principals[0] = principal("p-one", &["one", "three"], 1);
    let compiled = compile(&inputs, Some(&published(&whole)), above(&whole, 0, 0));
    assert_eq!(held(&compiled, "p-one"), Some(vec!["one".to_owned()]));
    assert_eq!(reason(&compiled, Kind::Scope, "three"), Some(ConditionReason::PolicyTooLarge));
    assert!(inputs.principals.iter().all(|principal| is_alive(&**principal)));
}

#[test]
fn a_lower_limit_leaves_room_for_what_is_compressed_badly() {
    let limit = Limit::DEFAULT.scaled(4 * MIB, 7 * MIB / 2);
    assert!(limit.new < 3 * MIB && limit.new > 5 * MIB / 2, "{limit:?}");
    assert_eq!(limit.scaled(3 * MIB, 6 * MIB).new, Limit::INCOMPRESSIBLE.new);
    const { assert!(Limit::INCOMPRESSIBLE.changed < MAX_COMPRESSED) };
}

/// What `docs/operations.md` says that fits: 5,000 principals with 5 scopes of 10 tools each, of 500 scopes on 50 servers
/// with 20 tools.
#[test]
fn the_documented_number_of_objects_fits_with_room_to_spare() {
    let string = |name: &str, rule: Value| json!({"name": name, "type": "String", "string": rule});
    let arguments = |root: &str, most: usize| {
        json!([
            {"name": "path", "required": true, "type": "Path", "path": {"within": [root], "extensions": ["md", "txt"]}},
            string("query", json!({"maxLength": 200, "pattern": "[a-z0-9 _-]{0,64}"})),
            {"name": "format", "type": "Enum", "enum": {"values": ["text", "markdown", "json"]}},
            {"name": "limit", "type": "Integer", "integer": {"minimum": 1, "maximum": most}},
        ])
    };
    let tool = |number: usize| format!("search_documents_{number:02}");
    let tools: Vec<Value> = (0..20)
        .map(|number| json!({"name": tool(number), "class": "Read", "arguments": arguments("/workspace", 1000 + number)}))
        .collect();
    let source = json!({"type": "Stdio", "stdio": {"image": "mcp-fleet.local/files:dev", "command": ["files"]}});
    let server =
        |number: usize| object("MCPServer", &format!("documents-{number}"), &json!({"source": source, "tools": tools}));
    let scope = |number: usize| {
        let root = format!("/workspace/departments/{number}");
        let tools: Vec<Value> = (0..10)
            .map(|offset| json!({"name": tool((number + offset) % 20), "arguments": arguments(&root, 10 + offset)}))
            .collect();
        let server = json!({"name": format!("documents-{}", number % 50)});
        object("MCPScope", &format!("department-{number}"), &json!({"serverRef": server, "tools": tools}))
    };
    let principal = |number: usize| {
        let scopes: Vec<Value> =
            (0..5).map(|held| json!({"name": format!("department-{}", (number * 7 + held * 101) % 500)})).collect();
        let limits = json!({"callsPerMinute": 60, "burst": 10, "maxConcurrentCalls": 4});
        object("MCPPrincipal", &format!("agent-{number:04}"), &json!({"scopeRefs": scopes, "limits": limits}))
    };
    let inputs = TenantInputs {
        servers: (0..50).map(server).collect(),
        scopes: (0..500).map(scope).collect(),
        principals: (0..5000).map(principal).collect(),
        budgets: vec![],
        ..inputs()
    };
    let compiled = compile(&inputs, None, Limit::DEFAULT);
    assert!(compiled.verdicts.values().all(|verdict| verdict.ok));
    assert_eq!(compiled.policy.principals.iter().map(|principal| principal.grants.len()).sum::<usize>(), 25_000);
    let (encoded, limit) = (size(&compiled), Limit::DEFAULT.bytes());
    assert!(encoded < limit / 3, "{encoded} bytes");
    let policy = TenantPolicy { generation: 1, ..compiled.policy };
    let compressed = CompressedPolicy::new(&mcp_fleet_control::encode(&policy)).unwrap().size();
    assert!(compressed < MAX_COMPRESSED / 4, "{compressed} bytes");
    println!("{encoded} bytes, {compressed} bytes compressed");
}
