//! The CustomResourceDefinitions as they are shipped: the derived schemas plus what a derive macro cannot express.

mod nested;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use kube::CustomResourceExt as _;
use mcp_fleet_policy::units::{Bytes, Limits, Window};
use serde_json::{Value, json};

pub(crate) use nested::{list_of_nested, nested};

use crate::condition::pending_status;
use crate::names::{DNS_1035, MAX_NAME, RUNTIME_NAMESPACE_SUFFIX};
use crate::time::TIME;
use crate::{MCPBudget, MCPLedger, MCPPrincipal, MCPScope, MCPServer, MCPTenant};

/// Returns the definitions of all kinds.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut tenant = with_name_rule(MCPTenant::crd());
    for root in roots(&mut tenant) {
        root.x_kubernetes_validations.get_or_insert_default().push(rule(
            format!(
                "has(self.spec.runtimeNamespace) || self.metadata.name + '{RUNTIME_NAMESPACE_SUFFIX}' != \
                 self.spec.__namespace__.name"
            ),
            format!(
                "namespace.name must differ from the runtime namespace, which defaults to the tenant's name followed by \
                 {RUNTIME_NAMESPACE_SUFFIX}; choose another name or set runtimeNamespace"
            ),
        ));
    }
    let with_tools =
        [MCPServer::crd(), MCPScope::crd()].map(with_nested).map(|crd| with_short_arguments(with_name_rule(crd)));
    let others = [MCPPrincipal::crd(), MCPBudget::crd()].map(with_name_rule);
    let with_status = [tenant].into_iter().chain(with_tools).chain(others).map(with_pending_status);
    with_status.chain([MCPLedger::crd()]).map(tidy).collect()
}

/// Returns the value of `x-kubernetes-validations` for pairs of a CEL expression that must be true and a message that
/// says what to do if it is not.
pub(crate) fn rules<T: AsRef<str>>(pairs: &[(T, T)]) -> Value {
    pairs.iter().map(|(rule, message)| json!({"rule": rule.as_ref(), "message": message.as_ref()})).collect()
}

/// Returns a rule with its message, to be listed with generated ones.
pub(crate) fn cel(rule: &str, message: &str) -> (String, String) {
    (rule.to_owned(), message.to_owned())
}

/// Returns the rule on the object that holds `field`, a path below `spec`, that its duration is within limits.
pub(crate) fn duration_within(field: &str, Limits { min, max }: Limits<Window>) -> (String, String) {
    let value = format!("duration(self.{})", last(field));
    (
        format!("{value} >= duration('{min}') && {value} <= duration('{max}')"),
        format!("{field} must be between {min} and {max}"),
    )
}

/// Returns the rule on the object that holds `field`, a path below `spec`, that its duration is not too short.
pub(crate) fn duration_at_least(field: &str, min: Window, reason: &str) -> (String, String) {
    (
        format!("duration(self.{}) >= duration('{min}')", last(field)),
        format!("{field} must be at least {min}, {reason}"),
    )
}

/// Returns the rule on the object that holds `field`, a path below `spec`, that its size is within limits.
pub(crate) fn size_within(field: &str, Limits { min, max }: Limits<Bytes>) -> (String, String) {
    let compared = format!("quantity(self.{}).compareTo", last(field));
    (
        format!("{compared}(quantity('{min}')) >= 0 && {compared}(quantity('{max}')) <= 0"),
        format!("{field} must be between {min} and {max}"),
    )
}

/// Returns the last part of the path of a field.
fn last(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}

fn rule(expression: impl Into<String>, message: impl Into<String>) -> ValidationRule {
    ValidationRule { rule: expression.into(), message: Some(message.into()), ..ValidationRule::default() }
}

fn roots(crd: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut())
}

/// Adds the rule on `metadata.name`, a field that no type in this crate declares.
fn with_name_rule(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let kind = crd.spec.names.kind.clone();
    for root in roots(&mut crd) {
        root.x_kubernetes_validations.get_or_insert_default().push(rule(
            format!("self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('{DNS_1035}')"),
            format!(
                "the name of an {kind} must be at most {MAX_NAME} characters, begin with a letter, and hold only lower \
                 case letters, digits and dashes: Services and Secrets are named after it"
            ),
        ));
    }
    crd
}

/// Adds the status of a new object as the default.
fn with_pending_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for status in roots(&mut crd).filter_map(|root| property(root, "status")) {
        status.default = Some(JSON(pending_status()));
    }
    crd
}

/// Puts the schemas of nested values where a derived definition has placeholders for them.
fn with_nested(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    roots(&mut crd).for_each(nested::expand);
    crd
}

/// Depth from which on the fields of arguments have no descriptions. Below it, there are a hundred copies of each.
pub(crate) const WITHOUT_DESCRIPTIONS: usize = 4;

/// Removes the descriptions of what is deep in arguments, which would make most of the definition.
fn with_short_arguments(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for root in roots(&mut crd) {
        let argument = property(root, "spec")
            .and_then(|spec| property(spec, "tools"))
            .and_then(items)
            .and_then(|tool| property(tool, "arguments"))
            .and_then(items);
        if let Some(argument) = argument {
            shorten(argument, 1);
        }
    }
    crd
}

fn shorten(value: &mut JSONSchemaProps, depth: usize) {
    if depth >= WITHOUT_DESCRIPTIONS {
        return without_descriptions(value);
    }
    for (member, inner) in [("array", "items"), ("object", "properties"), ("map", "values"), ("oneOf", "rules")] {
        let Some(inner) = property(value, member).and_then(|member| property(member, inner)) else { continue };
        match items(inner) {
            // A list of properties or rules.
            Some(_) => {
                if let Some(item) = items(inner) {
                    shorten(item, depth + 1);
                }
            }
            None => shorten(inner, depth + 1),
        }
    }
}

fn without_descriptions(schema: &mut JSONSchemaProps) {
    schema.description = None;
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(without_descriptions);
    if let Some(item) = items(schema) {
        without_descriptions(item);
    }
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn items(schema: &mut JSONSchemaProps) -> Option<&mut JSONSchemaProps> {
    match schema.items.as_mut()? {
        JSONSchemaPropsOrArray::Schema(items) => Some(items),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

/// Cleans up a derived definition.
fn tidy(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    // Uninstalling the chart must not delete every tenant in the cluster.
    crd.metadata.annotations.get_or_insert_default().insert("helm.sh/resource-policy".into(), "keep".into());
    for root in roots(&mut crd) {
        tidy_schema(root);
        // kube derives "Auto-generated derived type for …" here, which `kubectl explain` would print for the kind.
        root.description = property(root, "spec").and_then(|spec| spec.description.clone());
    }
    crd
}

fn tidy_schema(schema: &mut JSONSchemaProps) {
    // Makes null the same as an absent field: the API server prunes it before it applies defaults and rules.
    schema.nullable = None;
    match schema.format.as_deref() {
        // Kubernetes warns about formats that it does not know.
        Some("uint32") => {
            schema.format = None;
            within(schema, 0.0, Some(f64::from(u32::MAX)));
        }
        // The API server admits no integer beyond 64 bits with a sign.
        Some("uint64") => {
            schema.format = None;
            within(schema, 0.0, None);
        }
        // Kubernetes does not check this format.
        Some("int32") => within(schema, f64::from(i32::MIN), Some(f64::from(i32::MAX))),
        Some("date-time") => {
            schema.pattern = Some(TIME.pattern.to_owned());
            schema.max_length = i64::try_from(TIME.max_length).ok();
        }
        _ => {}
    }
    // `kubectl explain` wraps lines itself.
    if let Some(description) = schema.description.as_mut() {
        let paragraphs: Vec<_> = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(tidy_schema);
    if let Some(items) = items(schema) {
        tidy_schema(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        tidy_schema(values);
    }
}

/// Sets the limits of an integer where the schema has none.
fn within(schema: &mut JSONSchemaProps, minimum: f64, maximum: Option<f64>) {
    schema.minimum = schema.minimum.or(Some(minimum));
    schema.maximum = schema.maximum.or(maximum);
}

#[cfg(test)]
mod tests;
