//! Schemas of values in values, each made once.
//!
//! Types spell out how deep values nest, so a derived schema contains the schema of the innermost values hundreds of times. Deriving
//! rewrites each of them, and reads everything below it again for every value around it. Therefore a derived schema has a
//! placeholder for nested values, and [`expand`] puts their schemas there afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::generate::SchemaSettings;
use schemars::transform::AddNullable;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// What the title of a placeholder begins with, before the id of its schema. No other schema here has a title.
const PLACEHOLDER: &str = "nested:";

/// Makes a schema.
type Make = fn() -> Option<JSONSchemaProps>;

thread_local! {
    /// How the schema with an id is made. Whoever makes a placeholder enters it.
    static MAKE: RefCell<BTreeMap<String, Make>> = const { RefCell::new(BTreeMap::new()) };
}

/// Returns a placeholder for the schema of `V`.
pub(crate) fn nested<V: JsonSchema>(_: &mut SchemaGenerator) -> Schema {
    let id = V::schema_id().into_owned();
    let title = format!("{PLACEHOLDER}{id}");
    MAKE.with_borrow_mut(|known| known.insert(id, make::<V>));
    json_schema!({"type": "object", "title": title})
}

/// Returns the schema of a list with a placeholder for the schema of its items.
pub(crate) fn list_of_nested<V: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": nested::<V>(generator)})
}

/// Makes the schema of `V` as `kube` does that of an object.
fn make<V: JsonSchema>() -> Option<JSONSchemaProps> {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generator = settings
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator();
    let mut schema: JSONSchemaProps = serde_json::from_value(generator.into_root_schema_for::<V>().to_value()).ok()?;
    schema.title = None;
    Some(schema)
}

/// Puts the schemas of nested values where their placeholders are.
pub(super) fn expand(schema: &mut JSONSchemaProps) {
    expand_with(schema, &mut BTreeMap::new());
}

fn expand_with(schema: &mut JSONSchemaProps, made: &mut BTreeMap<String, JSONSchemaProps>) {
    let id = schema.title.as_deref().and_then(|title| title.strip_prefix(PLACEHOLDER)).map(str::to_owned);
    if let Some(id) = id {
        if !made.contains_key(&id) {
            // A placeholder that is not known would stay, and the API server would show it.
            let Some(mut nested) = MAKE.with_borrow(|known| known.get(&id).copied()).and_then(|make| make()) else {
                return;
            };
            expand_with(&mut nested, made);
            made.insert(id.clone(), nested);
        }
        if let Some(nested) = made.get(&id) {
            // The field says more than the type.
            let description = schema.description.take();
            *schema = nested.clone();
            schema.description = description.or_else(|| schema.description.take());
        }
        return;
    }
    let properties = schema.properties.iter_mut().flat_map(|properties| properties.values_mut());
    properties.for_each(|property| expand_with(property, made));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        expand_with(items, made);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        expand_with(values, made);
    }
}
