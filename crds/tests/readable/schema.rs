//! Generates values that a structural schema admits. A keyword that the generator does not know is a panic.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{number, pattern, time};

/// Longest generated list or map beyond the minimum. The lengths of lists make no difference to the types.
const MAX_ITEMS: i64 = 2;

/// Generates objects of a kind, with spec and status.
pub(crate) fn stored(kind: &str) -> BoxedStrategy<Value> {
    let crd = mcp_fleet_crds::all().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let kind = kind.to_owned();
    let with_type = move |mut object: Value| {
        object["apiVersion"] = json!("mcp-fleet.dev/v1alpha1");
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": "a"});
        object
    };
    admitted(&schema).prop_map(with_type).boxed()
}

/// Generates the values that a schema admits.
fn admitted(schema: &JSONSchemaProps) -> BoxedStrategy<Value> {
    assert_no_other_keywords(schema);
    if let Some(values) = &schema.enum_ {
        return prop::sample::select(values.clone()).prop_map(|value| value.0).boxed();
    }
    match schema.type_.as_deref() {
        Some("object") => object(schema),
        Some("array") => array(schema),
        Some("string") => string(schema).prop_map(Value::from).boxed(),
        Some("integer") => number::integer(schema.minimum, schema.maximum),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        None if schema.x_kubernetes_int_or_string == Some(true) => {
            prop_oneof![number::integer(schema.minimum, schema.maximum), string(schema).prop_map(Value::from)].boxed()
        }
        other => panic!("the generator does not know the type {other:?}"),
    }
}

/// Panics if the schema has a keyword that the generator does not take into account.
fn assert_no_other_keywords(schema: &JSONSchemaProps) {
    let others = JSONSchemaProps {
        additional_properties: None,
        enum_: None,
        format: None,
        items: None,
        max_items: None,
        max_length: None,
        max_properties: None,
        maximum: None,
        min_items: None,
        min_length: None,
        minimum: None,
        pattern: None,
        properties: None,
        required: None,
        type_: None,
        x_kubernetes_int_or_string: None,
        x_kubernetes_list_map_keys: None,
        x_kubernetes_list_type: None,
        // The API server fills in defaults, which the schema admits too.
        default: None,
        // These do not narrow what is admitted, or only by CEL rules.
        description: None,
        title: None,
        x_kubernetes_validations: None,
        ..schema.clone()
    };
    assert_eq!(others, JSONSchemaProps::default(), "the generator does not know these keywords");
}

fn object(schema: &JSONSchemaProps) -> BoxedStrategy<Value> {
    let required = schema.required.clone().unwrap_or_default();
    let properties = schema.properties.iter().flatten().map(|(name, property)| {
        let (name, value) = (name.clone(), admitted(property));
        let value = if required.contains(&name) {
            value.prop_map(Some).boxed()
        } else {
            prop::option::weighted(0.6, value).boxed()
        };
        value.prop_map(move |value| value.map(|value| (name.clone(), value)))
    });
    let properties: Vec<_> = properties.collect();
    let collect = |members: Vec<(String, Value)>| Value::Object(members.into_iter().collect::<Map<_, _>>());
    match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => {
            let max = schema.max_properties.unwrap_or(MAX_ITEMS).min(MAX_ITEMS);
            vec((text(0, 8), admitted(values)), 0..=usize::try_from(max).unwrap()).prop_map(collect).boxed()
        }
        Some(JSONSchemaPropsOrBool::Bool(_)) => panic!("the generator does not know open objects"),
        None => properties.prop_map(move |members| collect(members.into_iter().flatten().collect())).boxed(),
    }
}

fn array(schema: &JSONSchemaProps) -> BoxedStrategy<Value> {
    let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else { panic!("a list without one item schema") };
    let min = schema.min_items.unwrap_or(0);
    let max = schema.max_items.unwrap_or(i64::MAX).min(min + MAX_ITEMS);
    let keys = schema.x_kubernetes_list_map_keys.clone();
    let unique = schema.x_kubernetes_list_type.as_deref().is_some_and(|kind| kind != "atomic");
    vec(admitted(items), usize::try_from(min).unwrap()..=usize::try_from(max).unwrap())
        .prop_map(move |mut values| {
            let mut seen = BTreeSet::new();
            let key = |value: &Value| match &keys {
                Some(keys) => keys.iter().map(|key| value[key].to_string()).collect(),
                None => value.to_string(),
            };
            values.retain(|value| !unique || seen.insert(key(value)));
            Value::Array(values)
        })
        .boxed()
}

/// Generates the strings that a schema admits.
fn string(schema: &JSONSchemaProps) -> BoxedStrategy<String> {
    let min = usize::try_from(schema.min_length.unwrap_or(0)).unwrap();
    let max = schema.max_length.map_or(usize::MAX, |max| usize::try_from(max).unwrap());
    let texts = match (&schema.pattern, schema.format.as_deref()) {
        (Some(pattern), _) => pattern::matching(pattern),
        (None, Some("date-time")) => time::lenient(),
        (None, None) => text(min, max),
        (None, Some(format)) => panic!("the generator does not know the format {format}"),
    };
    let is_time = match schema.format.as_deref() {
        None => false,
        Some("date-time") => true,
        Some(format) => panic!("the generator does not know the format {format}"),
    };
    texts
        .prop_filter("the length", move |text| (min..=max).contains(&text.chars().count()))
        .prop_filter("the format", move |text| !is_time || time::is_date_time(text))
        .boxed()
}

/// Generates strings of any characters, often of the smallest and the largest length.
fn text(min: usize, max: usize) -> BoxedStrategy<String> {
    let longest = max.min(min + 300);
    let characters = || prop_oneof![any::<char>(), prop::sample::select(vec!['\0', '\n', ' ', 'a', '"', '\u{2028}'])];
    let of_length = move |length: usize| vec(characters(), length);
    let short = vec(characters(), min..=max.min(min + 8));
    prop_oneof![4 => short, 2 => of_length(min), 1 => characters().prop_map(move |one| vec![one; longest])]
        .prop_map(|characters| characters.into_iter().collect())
        .boxed()
}
