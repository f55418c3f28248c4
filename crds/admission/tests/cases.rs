//! The tables of `crds/tests/cases`, which are tested against a real API server too (`cargo xtask test api`): what that
//! refuses is refused here, with the same message.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../tests/cases/mod.rs"]
mod cases;

use std::collections::BTreeMap;

use cases::{Case, Table, compare, merged};
use mcp_fleet_admission::Admission;
use serde_json::{Value, json};

macro_rules! table {
    ($name:literal) => {
        serde_yaml_ng::from_str(include_str!(concat!("../../tests/cases/", $name, ".yaml"))).unwrap()
    };
}

fn of_tenant() -> BTreeMap<String, String> {
    BTreeMap::from([("mcp-fleet.dev/tenant".to_owned(), "acme".to_owned())])
}

fn admit(admission: &Admission, object: &Value, old: Option<&Value>) -> Result<Value, String> {
    admission.admit(object, old, &of_tenant()).map_err(|refusal| refusal.to_string())
}

fn run(table: &Table) {
    let admission = Admission::new().unwrap();
    let mut failures = Vec::new();
    let good = admit(&admission, &table.good, None);
    failures.extend(compare("the valid object", good.clone(), None));
    for case in &table.cases {
        let answer = match (&case.patch, &case.change) {
            (Some(patch), None) => admit(&admission, &merged(&table.good, patch), None),
            (None, Some(change)) => {
                let stored = good.as_ref().unwrap();
                admit(&admission, &merged(stored, change), Some(stored))
            }
            _ => panic!("{}: a case must have either patch or change", case.name),
        };
        failures.extend(compare(&case.name, answer, case.refused.as_deref()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn invalid_tenants_are_refused() {
    run(&table!("tenant"));
}

#[test]
fn invalid_servers_are_refused() {
    run(&table!("server"));
}

#[test]
fn invalid_scopes_are_refused() {
    run(&table!("scope"));
}

#[test]
fn invalid_principals_are_refused() {
    run(&table!("principal"));
}

#[test]
fn invalid_budgets_are_refused() {
    run(&table!("budget"));
}

/// Returns arguments that hold a value at depth 1 (as the argument), 2 (as an item) and 3 (as a property of an item).
fn at_depths(value: &Value) -> Vec<(usize, Value)> {
    let named = |value: &Value| merged(value, &json!({"name": "a"}));
    let list = |items: Value| json!({"name": "list", "type": "Array", "array": {"maxItems": 3, "items": items}});
    let object = |property: Value| json!({"type": "Object", "object": {"properties": [property]}});
    let mut depths = vec![(1, named(value)), (2, list(value.clone()))];
    if value.get("array").is_none() && value.get("object").is_none() && value["type"] != "Array" {
        depths.push((3, list(object(named(value)))));
    }
    depths
}

fn with_argument(argument: &Value) -> [Value; 2] {
    let object = |kind: &str, spec: Value| {
        json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "files", "namespace": "acme"}, "spec": spec})
    };
    let source = json!({"type": "Stdio", "stdio": {"image": "x", "command": ["x"]}});
    let server = json!({"source": source, "tools": [{"name": "t", "class": "Read", "arguments": [argument]}]});
    let scope = json!({"serverRef": {"name": "files"}, "tools": [{"name": "t", "arguments": [argument]}]});
    [object("MCPServer", server), object("MCPScope", scope)]
}

#[test]
fn invalid_arguments_are_refused_at_every_depth() {
    let admission = Admission::new().unwrap();
    let cases: Vec<Case> = table!("argument");
    let mut failures = Vec::new();
    for case in &cases {
        for (depth, argument) in at_depths(case.patch.as_ref().unwrap()) {
            for object in with_argument(&argument) {
                let name = format!("{} (depth {depth}, {})", case.name, object["kind"].as_str().unwrap());
                failures.extend(compare(&name, admit(&admission, &object, None), case.refused.as_deref()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn absent_fields_get_their_defaults() {
    let tenant = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant", "metadata": {"name": "acme"},
        "spec": {"namespace": {"name": "acme"}, "suspend": null}});
    let admitted = admit(&Admission::new().unwrap(), &tenant, None).unwrap();
    assert_eq!(admitted["spec"]["credentials"], json!({"lifetime": "1h", "overlap": "10m"}));
    assert_eq!(admitted["spec"]["gateway"]["resources"]["limits"], json!({"cpu": "1", "memory": "256Mi"}));
    assert_eq!(admitted["spec"]["suspend"], false);
    assert_eq!(admitted.get("status"), None);
}

#[test]
fn unknown_fields_are_refused_wherever_they_are() {
    let admission = Admission::new().unwrap();
    let [server, _] = with_argument(&json!({"name": "a", "type": "Boolean"}));
    for (patch, field) in [
        (json!({"extra": 1}), "extra"),
        (json!({"metadata": {"label": {}}}), "metadata.label"),
        (json!({"spec": {"replica": 1}}), "spec.replica"),
        (
            json!({"spec": {"tools": [{"name": "t", "class": "Read", "price": {"perCal": "1"}}]}}),
            "spec.tools[0].price.perCal",
        ),
    ] {
        let refused = admit(&admission, &merged(&server, &patch), None).unwrap_err();
        assert!(refused.contains(&format!("unknown field \"{field}\"")), "{refused}");
    }
}

#[test]
fn a_namespace_without_a_tenant_takes_no_objects() {
    let admission = Admission::new().unwrap();
    let [server, _] = with_argument(&json!({"name": "a", "type": "Boolean"}));
    let refused = admission.admit(&server, None, &BTreeMap::new()).unwrap_err().to_string();
    assert!(refused.contains("the namespace acme belongs to no MCPTenant"), "{refused}");
}

#[test]
fn a_large_object_is_refused() {
    let admission = Admission::new().unwrap();
    let argument =
        |number: usize| json!({"name": format!("a{number}"), "type": "Const", "const": {"string": "x".repeat(4000)}});
    let with = |count: usize| {
        let [_, scope] = with_argument(&argument(0));
        let arguments: Vec<_> = (0..count).map(argument).collect();
        merged(&scope, &json!({"spec": {"tools": [{"name": "t", "arguments": arguments}]}}))
    };
    admit(&admission, &with(31), None).unwrap();
    let refused = admit(&admission, &with(32), None).unwrap_err();
    assert!(refused.contains("and an MCPScope may have at most 131072"), "{refused}");
    // The values at depth 5 count too.
    let deep = |length: usize| {
        let text = json!({"name": "a", "type": "Const", "const": {"string": "x".repeat(length)}});
        let object = |property: &Value| json!({"type": "Object", "object": {"properties": [property]}});
        let list = |item: Value| json!({"name": "a", "type": "Array", "array": {"maxItems": 1, "items": item}});
        let arguments: Vec<_> = (0..31)
            .map(|number| merged(&list(object(&list(object(&text)))), &json!({"name": format!("a{number}")})))
            .collect();
        let [_, scope] = with_argument(&text);
        merged(&scope, &json!({"spec": {"tools": [{"name": "t", "arguments": arguments}]}}))
    };
    admit(&admission, &deep(3000), None).unwrap();
    let refused = admit(&admission, &deep(4000), None).unwrap_err();
    assert!(refused.contains("and an MCPScope may have at most 131072"), "{refused}");
    let labels: serde_json::Map<_, _> = (0..65).map(|number| (format!("l{number}"), json!("x"))).collect();
    let refused = admit(&admission, &merged(&with(1), &json!({"metadata": {"labels": labels}})), None).unwrap_err();
    assert!(refused.contains("metadata.labels must have at most 64 entries"), "{refused}");
}
