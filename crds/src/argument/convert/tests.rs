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

/// `create_entities` of server-memory.
#[test]
fn lists_of_objects_with_lists_convert_down_to_depth_5() {
    let text = json!({"type": "String", "string": {"maxLength": 100}});
    let named = |name: &str, value: &serde_json::Value| {
        let mut value = value.clone();
        value["name"] = name.into();
        value
    };
    let list = |items: &serde_json::Value| json!({"type": "Array", "array": {"maxItems": 8, "items": items}});
    let object = |properties: &[serde_json::Value]| json!({"type": "Object", "object": {"properties": properties}});
    let entity = object(&[named("name", &text), named("entityType", &text), named("observations", &list(&text))]);
    let argument = convert(named("entities", &list(&entity))).unwrap();
    assert!(rules::validate_arguments(&[argument]).is_ok());
    let deepest = list(&object(&[named("relations", &list(&object(&[named("to", &text)])))]));
    assert!(convert(named("a", &deepest)).is_ok());
    let wrong = json!({"type": "String", "string": {"maxLength": 1}, "integer": {"minimum": 0, "maximum": 1}});
    let deepest = list(&object(&[named("relations", &list(&object(&[named("to", &wrong)])))]));
    let error = convert(named("a", &deepest)).unwrap_err();
    assert_eq!(
        error,
        "a.array.items.relations.array.items.to.integer: does not belong to this type; remove it or change type"
    );
}

#[test]
fn values_of_several_types_convert() {
    let cell = json!({"type": "OneOf", "nullable": true, "oneOf": {"rules": [
        {"type": "String", "string": {"maxLength": 9}}, {"type": "Number", "number": {"minimum": "0", "maximum": "9"}}]}});
    let row = json!({"type": "Array", "array": {"maxItems": 9, "items": cell}});
    let rows = json!({"name": "rows", "type": "Array", "array": {"maxItems": 9, "items": row}});
    let Rule::Array(rows) = convert(rows).unwrap().rule else { unreachable!() };
    let Rule::Array(row) = rows.item else { unreachable!() };
    let Rule::Nullable(cell) = row.item else { unreachable!() };
    assert!(matches!(*cell, Rule::OneOf(options) if options.len() == 2));
    let labels = json!({"name": "labels", "type": "Map", "map": {"maxProperties": 3, "names": {"maxLength": 5, "leadingDash": "Allow"},
        "values": {"type": "Json", "json": {"maxBytes": 10, "maxDepth": 1}}}});
    let Rule::Map(map) = convert(labels).unwrap().rule else { unreachable!() };
    assert!(map.names.leading_dash && map.max_properties == 3);
    assert_eq!(map.values, Rule::Json(JsonRule { max_bytes: 10, max_depth: 1 }));
    for (argument, expected) in [
        (json!({"name": "a", "type": "Map"}), "a.map: must be set when type is Map"),
        (
            json!({"name": "a", "type": "Json", "map": {"maxProperties": 1, "names": {"maxLength": 1}, "values": {"type": "Boolean"}}}),
            "a.map: does not belong to this type",
        ),
        (
            json!({"name": "a", "type": "OneOf", "oneOf": {"rules": [{"type": "Boolean", "nullable": true}]}}),
            "a.oneOf.rules: an alternative cannot be nullable",
        ),
        (
            json!({"name": "a", "type": "Map", "map": {"maxProperties": 1, "names": {"maxLength": 1, "pattern": "^(?=a)$"}, "values": {"type": "Boolean"}}}),
            "a.map: pattern",
        ),
    ] {
        let error = convert(argument).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
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
