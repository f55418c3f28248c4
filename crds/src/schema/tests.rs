//! Properties that all definitions must have.
#![allow(clippy::unwrap_used)]

use super::*;

/// Calls `visit` with the path of every field below `schema`.
fn walk(schema: &JSONSchemaProps, path: &str, visit: &mut impl FnMut(&str, &JSONSchemaProps)) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, field);
        walk(field, &path, visit);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &field.items {
            visit(&format!("{path}[]"), items);
            walk(items, &format!("{path}[]"), visit);
        }
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

#[test]
fn kubectl_explain_has_a_description_for_every_field() {
    let mut undescribed = Vec::new();
    walk_specs(|path, field| {
        if field.description.is_none() && !path.ends_with("[]") {
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
