//! Tests of the conversion and of its error messages.
#![allow(clippy::unwrap_used)]

use serde::Deserialize as _;
use serde_json::json;

use super::*;

fn convert(argument: serde_json::Value) -> Result<model::Argument, String> {
    let argument: Argument = serde_json::from_value(argument).unwrap();
    model::Argument::try_from(&argument).map_err(|error| error.to_string())
}

#[test]
fn every_type_converts_to_its_rule() {
    let deep = json!({"name": "edits", "required": true, "type": "Array", "array": {"maxItems": 8, "items":
    {"type": "Object", "object": {"properties": [
        {"name": "oldText", "required": true, "type": "String", "string": {"maxLength": 10}},
        {"name": "dry", "type": "Boolean"},
        {"name": "mode", "type": "Const", "const": {"integer": 7}},
    ]}}}});
    let argument = convert(deep).unwrap();
    let Rule::Array(list) = argument.rule else { unreachable!() };
    let Rule::Object(properties) = &list.item else { unreachable!() };
    assert!(argument.required && list.max_items == 8 && properties.len() == 3);
    assert_eq!(properties[2].rule, Rule::Const(Scalar::Integer(7)));
    let path = convert(json!({"name": "path", "type": "Path", "path": {"within": ["/workspace"]}})).unwrap();
    assert_eq!(
        path.rule,
        Rule::Path(model::PathRule { within: vec!["/workspace".into()], extensions: vec![], dotfiles: false })
    );
    let extensions = json!({"within": ["/"], "extensions": ["md", "tar.gz", "c++"]});
    assert!(convert(json!({"name": "path", "type": "Path", "path": extensions})).is_ok());
}

#[test]
fn an_error_names_the_field_and_says_what_to_do() {
    let cases = [
        (json!({"name": "a", "type": "Path"}), "a.path: must be set when type is Path"),
        (
            json!({"name": "a", "type": "Boolean", "string": {"maxLength": 1}}),
            "a.string: does not belong to this type; remove it or change type",
        ),
        (
            json!({"name": "a", "type": "Integer", "integer": {"minimum": 2, "maximum": 1}}),
            "a.integer: nothing satisfies the rule: the minimum is above the maximum",
        ),
        (
            json!({"name": "a", "type": "Number", "number": {"minimum": "0.2", "maximum": "0.1"}}),
            "a.number: nothing satisfies the rule: the minimum is above the maximum",
        ),
        (
            json!({"name": "a", "type": "Path", "path": {"within": ["/x/../y"]}}),
            "a.path: \"/x/../y\" is not an absolute path without a trailing slash and without `.`, `..`, empty, `~` or glob components",
        ),
        (
            json!({"name": "a", "type": "Path", "path": {"within": ["/x"], "extensions": [".md"]}}),
            "a.path: \".md\" is not an extension: use parts of letters, digits, `_`, `+` and `-` with a dot between them, without the leading dot",
        ),
        (
            json!({"name": "a", "type": "Const", "const": {}}),
            "a.const: must have exactly one of string, integer and boolean",
        ),
        (
            json!({"name": "a", "type": "Object", "object": {"properties": [
                {"name": "b", "type": "Array", "array": {"maxItems": 1, "items":
                    {"type": "String", "string": {"maxLength": 1, "pattern": "^(?i)a$"}}}}]}}),
            "a.b.array.items.string: pattern \"^(?i)a$\" is refused: a group other than (…) and (?:…), which the regular expressions of ECMA-262 and of the gateway do not read in the same way",
        ),
    ];
    for (argument, message) in cases {
        assert_eq!(convert(argument), Err(message.to_owned()));
    }
}

#[test]
fn every_rule_of_the_quickstart_can_be_enforced() {
    for text in [
        include_str!("../../../../examples/quickstart/10-acme.yaml"),
        include_str!("../../../../examples/quickstart/20-beta.yaml"),
    ] {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let object = serde_yaml_ng::Value::deserialize(document).unwrap();
            match object["kind"].as_str() {
                Some("MCPServer") => {
                    let server: crate::MCPServer = serde_yaml_ng::from_value(object).unwrap();
                    server.spec.tools.iter().for_each(|tool| drop(arguments(&tool.arguments).unwrap()));
                }
                Some("MCPScope") => {
                    let scope: crate::MCPScope = serde_yaml_ng::from_value(object).unwrap();
                    scope
                        .spec
                        .tools
                        .iter()
                        .flat_map(|tool| &tool.arguments)
                        .for_each(|list| drop(arguments(list).unwrap()));
                }
                _ => {}
            }
        }
    }
}
