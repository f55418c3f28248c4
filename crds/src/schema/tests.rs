//! Properties that all definitions must have.
#![allow(clippy::unwrap_used)]

use mcp_fleet_policy::units::{Micros, limits};

use super::*;

/// Calls `visit` with the path of every field below `schema`.
fn walk(schema: &JSONSchemaProps, path: &str, visit: &mut impl FnMut(&str, &JSONSchemaProps)) {
    let fields = schema.properties.iter().flatten().map(|(name, field)| (format!("{path}.{name}"), field));
    let items = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some((format!("{path}[]"), &**items)),
        _ => None,
    };
    let values = match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => Some((format!("{path}[*]"), &**values)),
        _ => None,
    };
    for (path, field) in fields.chain(items).chain(values) {
        visit(&path, field);
        walk(field, &path, visit);
    }
}

/// Calls `visit` on every field of every kind's `spec`.
fn walk_specs(mut visit: impl FnMut(&str, &JSONSchemaProps)) {
    for mut crd in all() {
        let kind = crd.spec.names.kind.clone();
        for root in roots(&mut crd) {
            let spec = property(root, "spec").unwrap();
            walk(spec, &kind, &mut visit);
        }
    }
}

/// Whether a field is so deep in an argument that it has no description.
fn is_deep(path: &str) -> bool {
    let inner = [".array.items", ".object.properties[]", ".map.values", ".oneOf.rules[]"];
    let depth = 1 + inner.iter().map(|part| path.matches(part).count()).sum::<usize>();
    depth >= WITHOUT_DESCRIPTIONS
}

#[test]
fn kubectl_explain_has_a_description_for_every_field() {
    let mut undescribed = Vec::new();
    walk_specs(|path, field| {
        if field.description.is_none() && !path.ends_with(']') && !is_deep(path) {
            undescribed.push(path.to_owned());
        }
    });
    assert!(undescribed.is_empty(), "fields without a description: {undescribed:#?}");
}

#[test]
fn kubectl_explain_describes_every_kind() {
    for mut crd in all() {
        for root in roots(&mut crd) {
            let description = root.description.as_deref().unwrap_or_default();
            assert!(!description.is_empty() && !description.contains("Auto-generated"), "{description:?}");
        }
    }
}

#[test]
fn every_field_that_users_write_is_bounded() {
    let mut unbounded = Vec::new();
    walk_specs(|path, field| {
        // Only the operator writes ledgers, and it bounds them itself.
        if path.starts_with("MCPLedger") || path.contains("namespaceSelector") {
            return;
        }
        let bounded = match field.type_.as_deref() {
            Some("array") => field.max_items.is_some(),
            Some("string") => field.max_length.is_some() || field.enum_.is_some() || field.format.is_some(),
            Some("integer") => field.maximum.is_some(),
            Some("object") => field.additional_properties.is_none() || field.max_properties.is_some(),
            Some("number") => false,
            _ => true,
        };
        if !bounded {
            unbounded.push(path.to_owned());
        }
    });
    assert!(unbounded.is_empty(), "fields without bounds: {unbounded:#?}");
}

#[test]
fn descriptions_name_the_limits_and_the_default_of_their_field() {
    let mut missing = Vec::new();
    walk_specs(|path, field| {
        let described = path.starts_with("MCPLedger") || path.ends_with(']') || is_deep(path);
        // A list without duplicates is limited by the number of values that there are.
        let closed = matches!(&field.items, Some(JSONSchemaPropsOrArray::Schema(items)) if items.enum_.is_some());
        if described || closed {
            return;
        }
        let description = field.description.clone().unwrap_or_default();
        let words: Vec<_> = description.split([' ', ',', ';']).map(|word| word.trim_matches(['.', ':', '-'])).collect();
        let sizes = [field.max_items, field.max_properties].into_iter().flatten().map(|limit| limit.to_string());
        let values = [field.minimum, field.maximum].into_iter().flatten().map(|limit| limit.abs().to_string());
        let limits = sizes.chain(values).filter(|limit| limit != "0" && !words.contains(&limit.as_str()));
        missing.extend(limits.map(|limit| format!("{path}: {limit}")));
        let default = match field.default.as_ref().map(|default| &default.0) {
            Some(Value::Object(_)) | None => return,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        if !description.contains(&format!("Default: {default}.")) {
            missing.push(format!("{path}: Default: {default}."));
        }
    });
    assert!(missing.is_empty(), "limits and defaults that are not described: {missing:#?}");
}

#[test]
fn descriptions_name_the_limits_of_amounts_sizes_and_durations() {
    fn texts<T: ToString>(Limits { min, max }: Limits<T>) -> [String; 2] {
        [min.to_string(), max.to_string()]
    }
    let limited = [
        ("MCPServer.limits.timeout", texts(limits::CALL_TIMEOUT)),
        ("MCPServer.limits.maxRequestSize", texts(limits::REQUEST_SIZE)),
        ("MCPServer.limits.maxResponseSize", texts(limits::RESPONSE_SIZE)),
        ("MCPTenant.credentials.lifetime", texts(limits::TOKEN_LIFETIME)),
        ("MCPTenant.credentials.overlap", [limits::MIN_TOKEN_OVERLAP.to_string(), "lifetime".to_owned()]),
        ("MCPTenant.policy.staleAfter.read", texts(limits::STALE_AFTER)),
        ("MCPTenant.policy.staleAfter.write", texts(limits::STALE_AFTER)),
        ("MCPTenant.spendLimit.amount", ["six decimals".to_owned(), Micros::MAX.to_string()]),
        ("MCPServer.tools[].price.perCall", ["six decimals".to_owned(), Micros::MAX.to_string()]),
        ("MCPBudget.amount", ["six decimals".to_owned(), Micros::MAX.to_string()]),
    ];
    let mut found = 0;
    walk_specs(|path, field| {
        for (_, texts) in limited.iter().filter(|(name, _)| *name == path) {
            found += 1;
            let description = field.description.clone().unwrap_or_default();
            assert!(texts.iter().all(|text| description.contains(text)), "{path}: {texts:?}: {description}");
        }
    });
    assert_eq!(found, limited.len());
}

/// Returns an upper limit for the size of a value as JSON, in bytes, if its texts need no escapes.
fn largest(schema: &JSONSchemaProps) -> u64 {
    let limit = |limit: Option<i64>| u64::try_from(limit.unwrap()).unwrap();
    let quoted = |length: usize| length as u64 + 3;
    if let Some(values) = &schema.enum_ {
        return values.iter().map(|value| quoted(value.0.to_string().len())).max().unwrap();
    }
    match schema.type_.as_deref() {
        Some("array") => {
            let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else { panic!("an array without items") };
            2 + limit(schema.max_items) * (largest(items) + 1)
        }
        Some("object") => {
            let fields = schema.properties.iter().flatten();
            2 + fields.map(|(name, field)| quoted(name.len()) + 1 + largest(field)).sum::<u64>()
        }
        Some("string") => 4 * limit(schema.max_length) + 3,
        Some("integer") => 20,
        Some("boolean") => 5,
        other => panic!("unexpected type {other:?}"),
    }
}

#[test]
fn principals_and_budgets_are_smaller_than_32_kib() {
    let mut found = 0;
    for mut crd in all() {
        if matches!(crd.spec.names.kind.as_str(), "MCPPrincipal" | "MCPBudget") {
            let root = roots(&mut crd).next().unwrap();
            let size = largest(property(root, "spec").unwrap());
            assert!(size < 32 << 10, "{size}");
            found += 1;
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn kinds_have_their_documented_names() {
    let names: Vec<String> = all()
        .into_iter()
        .map(|crd| {
            let names = crd.spec.names;
            assert_eq!(names.categories.unwrap_or_default(), ["mcp"]);
            format!("{} {} {}", names.plural, names.short_names.unwrap_or_default().join(","), crd.spec.scope)
        })
        .collect();
    insta::assert_yaml_snapshot!(names, @r"
    - mcptenants mcpt Cluster
    - mcpservers mcps Namespaced
    - mcpscopes mcpsc Namespaced
    - mcpprincipals mcpp Namespaced
    - mcpbudgets mcpb Namespaced
    - mcpledgers mcpl Namespaced
    ");
}

#[test]
fn every_cel_rule_has_a_message_of_more_than_20_bytes() {
    for mut crd in all() {
        for root in roots(&mut crd) {
            walk(root, "", &mut |path, field| {
                for rule in field.x_kubernetes_validations.iter().flatten() {
                    assert!(rule.message.as_ref().is_some_and(|message| message.len() > 20), "{path}: {}", rule.rule);
                }
            });
        }
    }
}

/// YAML 1.1, which helm and kubectl read, takes these for booleans.
#[test]
fn no_value_of_an_enum_is_a_boolean_in_yaml() {
    let booleans = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    walk_specs(|path, field| {
        for value in field.enum_.iter().flatten() {
            let text = value.0.as_str().unwrap_or_default();
            assert!(!booleans.contains(&text.to_lowercase().as_str()), "{path}: {text}");
        }
    });
}
