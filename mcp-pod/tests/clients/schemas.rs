//! Tool lists as frameworks turn them into requests to the APIs of model providers, which take only some keywords of JSON Schema.

use std::process::Stdio;
use std::sync::Arc;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Argument, ArrayRule, Grant, GrantedTool, PathRule, Rule, Scalar, StringRule};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::STEP_TIMEOUT;
use super::support::{TestGateway, tool};

fn argument(name: &str, rule: Rule) -> Argument {
    Argument { name: name.to_owned(), required: name == "text", rule, shown: None }
}

fn string(pattern: &str) -> Rule {
    Rule::String(StringRule { max_length: 100, pattern: Some(pattern.to_owned()), leading_dash: false })
}

/// Arguments with all kinds of rules.
fn arguments() -> Vec<Argument> {
    let number = Rule::Number { minimum: "0.5".to_owned(), maximum: "1.5".to_owned() };
    let path = Rule::Path(PathRule { within: vec!["/workspace".to_owned()], extensions: vec![], dotfiles: false });
    let object = Rule::Object(vec![argument("text", string("[a-z]+")), argument("number", number)]);
    let array = Rule::Array(Box::new(ArrayRule { item: object, max_items: 3 }));
    let integer = Rule::Integer { minimum: 1, maximum: 9 };
    let choice = Rule::Enum(vec!["a".to_owned(), "b".to_owned()]);
    [
        ("text", string("[a-z-]+")),
        ("path", path),
        ("array", array),
        ("integer", integer),
        ("choice", choice),
        ("flag", Rule::Boolean),
    ]
    .map(|(name, rule)| argument(name, rule))
    .to_vec()
}

/// The same arguments, as a scope narrows them.
fn narrower() -> Vec<Argument> {
    [
        ("text", string("a.*")),
        ("integer", Rule::Const(Scalar::Integer(7))),
        ("choice", Rule::Const(Scalar::String("b".to_owned()))),
        ("flag", Rule::Const(Scalar::Boolean(true))),
    ]
    .map(|(name, rule)| argument(name, rule))
    .to_vec()
}

#[tokio::test]
#[ignore = "needs packages of model providers: `cargo xtask test more-clients`"]
async fn more_schemas() {
    let gateway = TestGateway::with(|policy| {
        let grants = &mut policy.principals[0].grants;
        let of = |tool: &str, scope: &str, arguments: Option<Vec<Argument>>| {
            let tools = vec![GrantedTool { name: tool.to_owned(), arguments: arguments.map(Arc::from) }];
            Arc::new(Grant {
                scope: scope.to_owned(),
                server_uid: grants[0].server_uid.clone(),
                tools,
                classes: vec![],
            })
        };
        let other =
            vec![argument("text", string("b.*")), argument("integer", Rule::Integer { minimum: 2, maximum: 3 })];
        let all = [
            of("whole", "whole", None),
            of("narrow", "narrow", Some(narrower())),
            of("both", "narrow", Some(narrower())),
            of("both", "other", Some(other)),
            of("none", "none", None),
        ];
        *grants = all.to_vec();
        policy.servers[0].tools = ["whole", "narrow", "both"].map(|name| tool(name, Class::Read, arguments())).to_vec();
        policy.servers[0].tools.push(tool("none", Class::Read, vec![]));
    })
    .await;
    // Without a report of the server, the list is made of the catalogue alone.
    gateway.shim.set_starting(true);
    let mut client = gateway.client().await;
    let listed = client.modern("tools/list", json!({})).await.json();
    let tools = listed["result"]["tools"].as_array().unwrap();
    // The built-in tools as well.
    assert_eq!(tools.len(), 6, "{listed}");
    assert!(tools.iter().any(|tool| tool["inputSchema"].to_string().contains("anyOf")), "{listed}");
    let mut command = super::client("SCHEMAS");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(listed["result"]["tools"].to_string().as_bytes()).await.unwrap();
    let output = tokio::time::timeout(STEP_TIMEOUT, child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    let taken: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(taken, json!({"openai": names, "gemini": names}));
}
