//! Which calls grants allow, checked by example and against the model.

use proptest::prelude::*;

use super::*;
use crate::json::{Members, Value};
use crate::model::{Argument, Budget, BudgetMode, Grant, PathRule, Period, Rule, Selector};
use crate::testing::*;

fn integer(name: &str, required: bool, minimum: i64, maximum: i64) -> Argument {
    Argument { name: name.into(), required, rule: Rule::Integer { minimum, maximum }, shown: None }
}

fn path(name: &str, root: &str) -> Argument {
    let rule = PathRule { within: vec![root.into()], extensions: vec![], dotfiles: false };
    Argument { name: name.into(), required: true, rule: Rule::Path(rule), shown: None }
}

fn files(grants: Vec<Grant>) -> Policy {
    let mut policy = policy();
    let read = tool("read", Class::Read, vec![path("path", "/w"), integer("head", false, 1, 10_000)]);
    policy.servers[0].tools = vec![
        read,
        tool("write", Class::Write, vec![path("path", "/w")]),
        tool("remove", Class::Destructive, vec![path("path", "/w")]),
    ];
    policy.principals[0].grants = grants.into_iter().map(Arc::new).collect();
    Policy::new(policy).unwrap()
}

fn authorised(compiled: &Policy, tool: &str) -> Result<(), Reason> {
    compiled.principal("p-coder").unwrap().authorise("files", tool).map(drop)
}

fn call(compiled: &Policy, tool: &str, members: &Members<'static>) -> Result<String, Reason> {
    let access = compiled.principal("p-coder").unwrap().authorise("files", tool)?;
    let arguments = Value::Object(members.clone());
    access.admit(Some(&arguments)).map(|admitted| admitted.scope.to_owned()).map_err(|denial| denial.reason)
}

fn at(path: &'static str) -> Members<'static> {
    vec![("path".into(), Value::String(path.into()))]
}

#[test]
fn nothing_is_granted_by_default() {
    let compiled = files(vec![]);
    assert_eq!(authorised(&compiled, "read"), Err(Reason::ServerUnknown));
    let compiled = files(vec![grant("empty", vec![], vec![])]);
    assert_eq!(authorised(&compiled, "read"), Err(Reason::ServerUnknown));
    assert!(compiled.principal("p-other").is_none());
}

#[test]
fn a_class_covers_the_tools_that_are_not_named_in_that_scope() {
    let narrowed = named_tool("read", Some(vec![path("path", "/w/reports")]));
    let compiled = files(vec![grant("s", vec![narrowed.clone()], vec![Class::Read, Class::Write])]);
    assert_eq!(call(&compiled, "read", &at("/w/a")), Err(Reason::PathOutsideRoots));
    assert_eq!(call(&compiled, "read", &at("/w/reports/a")), Ok("s".into()));
    assert_eq!(call(&compiled, "write", &at("/w/a")), Ok("s".into()));
    assert_eq!(authorised(&compiled, "remove"), Err(Reason::ToolNotGranted));
    assert_eq!(authorised(&compiled, "format"), Err(Reason::ToolUnknown));
    // The class of another scope covers the tool.
    let compiled = files(vec![grant("s", vec![narrowed], vec![]), grant("all", vec![], vec![Class::Read])]);
    assert_eq!(call(&compiled, "read", &at("/w/a")), Ok("all".into()));
}

#[test]
fn arguments_that_a_scope_does_not_list_are_not_granted() {
    let with_head = |head: i64| {
        let mut members = at("/w/a");
        members.push(("head".into(), Value::Integer(head)));
        members
    };
    let whole = files(vec![grant("s", vec![named_tool("read", None)], vec![])]);
    assert_eq!(call(&whole, "read", &with_head(5)), Ok("s".into()));
    assert_eq!(call(&whole, "read", &with_head(0)), Err(Reason::ArgumentOutOfRange));
    let narrow = files(vec![grant("s", vec![named_tool("read", Some(vec![path("path", "/")]))], vec![])]);
    assert_eq!(call(&narrow, "read", &with_head(5)), Err(Reason::ArgumentUndeclared));
    assert_eq!(call(&narrow, "read", &at("/w/a")), Ok("s".into()));
    // The catalogue's root still holds where the scope is wider.
    assert_eq!(call(&narrow, "read", &at("/etc/passwd")), Err(Reason::PathOutsideRoots));
    // The scope omits an argument that the catalogue requires, so no call is possible.
    let empty = files(vec![grant("s", vec![named_tool("read", Some(vec![]))], vec![Class::Write])]);
    assert_eq!(authorised(&empty, "read"), Err(Reason::ToolNotGranted));
}

#[test]
fn two_grants_are_never_combined_argument_by_argument() {
    let narrow = |root, maximum| {
        let arguments = vec![path("path", root), integer("head", true, 1, maximum)];
        grant(if maximum == 10 { "ten" } else { "thousand" }, vec![named_tool("read", Some(arguments))], vec![])
    };
    let compiled = files(vec![narrow("/w/a", 10), narrow("/w/b", 1000)]);
    let members = |path: &'static str, head| {
        let mut members = at(path);
        members.push(("head".into(), Value::Integer(head)));
        members
    };
    assert_eq!(call(&compiled, "read", &members("/w/a/x", 10)), Ok("ten".into()));
    assert_eq!(call(&compiled, "read", &members("/w/b/x", 1000)), Ok("thousand".into()));
    assert_eq!(call(&compiled, "read", &members("/w/a/x", 1000)), Err(Reason::ArgumentOutOfRange));
    // The denial is that of the closest grant.
    let access = compiled.principal("p-coder").unwrap().authorise("files", "read").unwrap();
    let arguments = Value::Object(members("/w/b/x", 5000));
    let denial = access.admit(Some(&arguments)).unwrap_err();
    assert_eq!(denial.limit.as_deref(), Some("argument `head` must be between 1 and 1000"));
}

#[test]
fn an_admitted_call_carries_the_roots_of_its_grant() {
    let compiled = files(vec![grant("s", vec![named_tool("read", Some(vec![path("path", "/w/reports")]))], vec![])]);
    let access = compiled.principal("p-coder").unwrap().authorise("files", "read").unwrap();
    let arguments = Value::Object(at("/w/reports/a"));
    let admitted = access.admit(Some(&arguments)).unwrap();
    assert_eq!(admitted.paths.len(), 1);
    assert_eq!(admitted.paths[0].within, ["/w/reports"]);
    assert_eq!(access.admit(None).unwrap_err().reason, Reason::ArgumentMissing);
    assert_eq!(access.admit(Some(&Value::Array(vec![]))).unwrap_err().reason, Reason::ArgumentType);
}

#[test]
fn null_stands_for_an_optional_argument_and_for_no_other() {
    let text = |name: &str, required| Argument { name: name.into(), required, rule: Rule::Boolean, shown: None };
    let nested = Argument {
        name: "o".into(),
        required: false,
        rule: Rule::Object(vec![text("b", false), text("c", true)]),
        shown: None,
    };
    let mut policy = policy();
    policy.servers[0].tools = vec![tool("t", Class::Read, vec![text("a", false), text("r", true), nested])];
    policy.principals[0].grants = vec![Arc::new(grant("s", vec![], vec![Class::Read]))];
    let compiled = Policy::new(policy).unwrap();
    let access = compiled.principal("p-coder").unwrap().authorise("files", "t").unwrap();
    let left = |text: &str| {
        let mut value = crate::json::parse(text.as_bytes(), &crate::json::Limits::REQUEST).unwrap();
        access.leave_out_nulls(&mut value);
        let mut out = Vec::new();
        crate::json::write(&value, &mut out);
        (String::from_utf8(out).unwrap(), access.admit(Some(&value)).map(drop).map_err(|denial| denial.reason))
    };
    assert_eq!(left(r#"{"a":null,"r":true}"#), (r#"{"r":true}"#.into(), Ok(())));
    assert_eq!(left(r#"{"r":true,"o":{"b":null,"c":true}}"#), (r#"{"r":true,"o":{"c":true}}"#.into(), Ok(())));
    assert_eq!(left(r#"{"r":true,"o":null}"#), (r#"{"r":true}"#.into(), Ok(())));
    let refused = |text: &str, reason| assert_eq!(left(text), (text.into(), Err(reason)));
    refused(r#"{"r":null}"#, Reason::ArgumentType);
    refused(r#"{"r":true,"x":null}"#, Reason::ArgumentUndeclared);
    refused(r#"{"r":true,"o":{"c":null}}"#, Reason::ArgumentType);
    refused(r#"{"r":true,"o":[null]}"#, Reason::ArgumentType);
}

#[test]
fn a_budget_selects_calls_by_principal_server_and_class() {
    let mut policy = files(vec![grant("s", vec![], Class::ALL.to_vec())]).model;
    let budget = |name: &str, selector| Budget {
        name: name.into(),
        uid: name.into(),
        selector,
        period: Period::Day,
        amount: None,
        calls: Some(1),
        mode: BudgetMode::Enforce,
        top_up: None,
    };
    policy.budgets = vec![
        budget("all", Selector::default()),
        budget("writes", Selector { classes: Some(vec![Class::Write]), ..Selector::default() }),
        budget("other", Selector { principals: Some(vec!["p-other".into()]), ..Selector::default() }),
        budget("files", Selector { servers: Some(vec!["s-files".into()]), ..Selector::default() }),
        budget("none", Selector { servers: Some(vec![]), ..Selector::default() }),
    ];
    let compiled = Policy::new(policy).unwrap();
    let names = |tool: &str| {
        let access = compiled.principal("p-coder").unwrap().authorise("files", tool).unwrap();
        access.budgets().map(|budget| budget.name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(names("write"), ["all", "writes", "files"]);
    assert_eq!(names("read"), ["all", "files"]);
}

#[test]
fn a_name_that_occurs_twice_is_refused() {
    let mut twice = policy();
    twice.servers.push(server("files", vec![]));
    assert!(matches!(Policy::new(twice), Err(CompileError::Duplicate { kind: "server", .. })));
    let mut twice = policy();
    twice.principals.push(principal("coder"));
    assert!(matches!(Policy::new(twice), Err(CompileError::Duplicate { kind: "principal", .. })));
}

#[test]
fn an_old_proof_of_freshness_blocks_writes_before_reads() {
    let compiled = files(vec![]);
    let fresh = |seconds, class| compiled.check_fresh(Duration::from_secs(seconds), class);
    assert_eq!(fresh(15, Class::Write), Ok(()));
    assert_eq!(fresh(16, Class::Destructive), Err(Reason::PolicyStale));
    assert_eq!(fresh(60, Class::Read), Ok(()));
    assert_eq!(fresh(61, Class::Read), Err(Reason::PolicyStale));
}

#[test]
fn a_null_that_only_the_catalogue_admits_counts_as_absent_for_a_narrower_scope() {
    let argument = |name: &str, required, rule| Argument { name: name.into(), required, rule, shown: None };
    let nullable = |rule| Rule::Nullable(Box::new(rule));
    let declared =
        || vec![argument("a", false, nullable(Rule::Boolean)), argument("b", false, nullable(Rule::Boolean))];
    let call = |grants: Vec<Grant>| {
        let mut policy = policy();
        policy.servers[0].tools = vec![tool("t", Class::Read, declared())];
        policy.principals[0].grants = grants.into_iter().map(Arc::new).collect();
        let compiled = Policy::new(policy).unwrap();
        let access = compiled.principal("p-coder").unwrap().authorise("files", "t").unwrap();
        let mut call = Value::Object(vec![("a".into(), Value::Null), ("b".into(), Value::Null)]);
        access.leave_out_nulls(&mut call);
        access.admit(Some(&call)).map(|_| call.clone()).map_err(|denial| denial.reason)
    };
    let narrow = |required| {
        let arguments = vec![argument("a", required, Rule::Boolean), argument("b", false, nullable(Rule::Boolean))];
        grant("narrow", vec![named_tool("t", Some(arguments))], vec![])
    };
    let b = Value::Object(vec![("b".into(), Value::Null)]);
    assert_eq!(call(vec![narrow(false)]), Ok(b), "only where the scope does not admit it");
    assert_eq!(call(vec![narrow(true)]), Err(Reason::ArgumentType), "a required argument is not absent");
    let both = Value::Object(vec![("a".into(), Value::Null), ("b".into(), Value::Null)]);
    assert_eq!(
        call(vec![narrow(false), grant("all", vec![], vec![Class::Read])]),
        Ok(both),
        "as a whole grant admits it"
    );
}

/// Whether the grant and the catalogue admit a call, evaluated on the model without the lookup tables.
fn admits(tool: &crate::model::Tool, grant: &Grant, members: &Members<'_>) -> bool {
    let admits = |arguments: &[Argument]| Arguments::new(arguments).unwrap().admit(members, &mut Vec::new()).is_ok();
    let granted = match grant.tools.iter().find(|named| named.name == tool.name) {
        Some(named) => named.arguments.as_ref().is_none_or(|arguments| admits(arguments)),
        None => grant.classes.contains(&tool.class),
    };
    granted && admits(&tool.arguments)
}

fn allowed(tool: &crate::model::Tool, grants: &[Grant], members: &Members<'static>) -> bool {
    let mut policy = policy();
    policy.servers[0].tools = vec![tool.clone()];
    policy.principals[0].grants = grants.iter().cloned().map(Arc::new).collect();
    call(&Policy::new(policy).unwrap(), "t", members).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_call_is_allowed_if_and_only_if_a_grant_and_the_catalogue_admit_it(
        (tool, grants, members) in tool_grants_and_call()
    ) {
        let expected = grants.iter().any(|grant| admits(&tool, grant, &members));
        prop_assert_eq!(allowed(&tool, &grants, &members), expected);
    }

    #[test]
    fn an_additional_grant_never_forbids_an_allowed_call(
        (tool, grants, members) in tool_grants_and_call(), more in any_grant()
    ) {
        if allowed(&tool, &grants, &members) {
            let mut grants = grants;
            grants.insert(0, more);
            prop_assert!(allowed(&tool, &grants, &members));
        }
    }
}

#[test]
fn callers_use_the_alias_and_grants_the_name() {
    let mut policy = files(vec![grant("s", vec![named_tool("write", None)], vec![])]).model().clone();
    policy.servers[0].tools[1].alias = Some("store".into());
    let compiled = Policy::new(policy.clone()).unwrap();
    assert_eq!(call(&compiled, "store", &at("/w/a")), Ok("s".into()));
    assert_eq!(authorised(&compiled, "write"), Err(Reason::ToolUnknown));
    policy.principals[0].grants = vec![Arc::new(grant("s", vec![named_tool("store", None)], vec![]))];
    assert_eq!(authorised(&Policy::new(policy.clone()).unwrap(), "store"), Err(Reason::ServerUnknown));
    // Callers could not tell them apart.
    policy.servers[0].tools[1].alias = Some("read".into());
    let duplicate = CompileError::Duplicate { kind: "name of a tool for callers", name: "read".into() };
    assert_eq!(Policy::new(policy).unwrap_err(), duplicate);
}
