//! What becomes a rule, and what the refusals say.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn convert(argument: serde_json::Value) -> Result<model::Argument, String> {
    let argument: Argument = serde_json::from_value(argument).unwrap();
    model::Argument::try_from(&argument).map_err(|error| error.to_string())
}

#[test]
fn every_type_becomes_its_rule() {
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
}

#[test]
fn a_refusal_names_the_field_and_the_way_out() {
    let cases = [
        (json!({"name": "a", "type": "Path"}), "a.path: must be set when type is Path"),
        (
            json!({"name": "a", "type": "Boolean", "string": {"maxLength": 1}}),
            "a.string: does not belong to this type; remove it or change type",
        ),
        (
            json!({"name": "a", "type": "Integer", "integer": {"minimum": 2, "maximum": 1}}),
            "a.integer.minimum: must not be larger than maximum; swap them",
        ),
        (
            json!({"name": "a", "type": "Number", "number": {"minimum": "0.2", "maximum": "0.1"}}),
            "a.number.minimum: must not be larger than maximum; swap them",
        ),
        (
            json!({"name": "a", "type": "Path", "path": {"within": ["/x/../y"]}}),
            "a.path.within: \"/x/../y\" must not have `//`, `.`, `..` or a slash at the end; write it in full",
        ),
        (
            json!({"name": "a", "type": "Const", "const": {}}),
            "a.const: must have exactly one of string, integer and boolean",
        ),
        (
            json!({"name": "a", "type": "Object", "object": {"properties": [
                {"name": "b", "type": "Array", "array": {"maxItems": 1, "items":
                    {"type": "String", "string": {"maxLength": 1, "pattern": "a"}}}}]}}),
            "a.b.array.items.string.pattern: must begin with ^ and end with $, so that it covers the whole string",
        ),
    ];
    for (argument, message) in cases {
        assert_eq!(convert(argument), Err(message.to_owned()));
    }
}

#[test]
fn patterns_that_two_readers_could_read_differently_are_refused() {
    let good = ["^[a-z]+$", "^(?:a|b)$", r"^\d{4}-\d{2}$", r"^[^/\[\]]*$", "^a-b$", r"^\$$", "^[a|^$]$"];
    for pattern in good {
        assert_eq!(check::pattern(pattern), Ok(()), "{pattern}");
    }
    let bad = [
        "",
        "a",
        "^a|b$",
        "^(?i)a$",
        "^(?=a)$",
        r"^\p{L}$",
        r"^\x{41}$",
        "^[[:alpha:]]$",
        "^[a&&b]$",
        "^a$b$",
        "^(a$",
        r"^a\$",
        r"^\z$",
        "^(?:(?:a{999}){999}){999}$",
    ];
    for pattern in bad {
        assert!(check::pattern(pattern).is_err(), "{pattern:?} was taken");
    }
}
