//! Labels and annotations of pods: what their keys and values are, and which keys are reserved.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::schema::cel;

/// Pattern of a key of a label or annotation: a name, with an optional DNS subdomain before it.
pub(super) const KEY: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// Longest domain of a key.
const MAX_DOMAIN: usize = 253;
/// Longest key: a domain, a slash and a name.
pub(super) const MAX_KEY: usize = MAX_DOMAIN + 1 + 63;
/// Domains whose labels select pods, or are set by controllers: also those below them.
const LABEL_DOMAINS: [&str; 3] = ["mcp-fleet.dev", "kubernetes.io", "k8s.io"];
/// Labels without a domain that controllers set.
const CONTROLLER_LABELS: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];
/// Domains of annotations that the operator and kubectl set.
const ANNOTATION_DOMAINS: [&str; 2] = ["mcp-fleet.dev", "kubectl.kubernetes.io"];

/// Whether a label of pods must not be set from outside, because selectors depend on it or a controller sets it.
pub fn is_reserved_label(key: &str) -> bool {
    is_in_domain(key, &LABEL_DOMAINS) || CONTROLLER_LABELS.contains(&key)
}

/// Whether an annotation of pods must not be set from outside.
pub fn is_reserved_annotation(key: &str) -> bool {
    is_in_domain(key, &ANNOTATION_DOMAINS)
}

fn is_in_domain(key: &str, domains: &[&str]) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    domains
        .iter()
        .any(|domain| prefix.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// Returns a CEL expression for whether the domain of a key is short enough. A pattern cannot say that.
fn is_short(key: &str) -> String {
    format!("{key}.indexOf('/') <= {MAX_DOMAIN}")
}

/// Returns the rule that the domain of the key in a field is short enough.
pub(super) fn short_domain(field: &str) -> (String, String) {
    (
        format!("!has(self.{field}) || {}", is_short(&format!("self.{field}"))),
        format!("the part of {field} before the slash has at most {MAX_DOMAIN} characters"),
    )
}

/// Returns the rule that the domains of the keys in a list are short enough.
pub(super) fn short_domains(field: &str) -> (String, String) {
    (
        format!("!has(self.{field}) || self.{field}.all(k, {})", is_short("k")),
        format!("the parts of {field} before the slash have at most {MAX_DOMAIN} characters"),
    )
}

/// Returns the rule that the keys of a map are valid.
pub(super) fn valid_keys(field: &str) -> (String, String) {
    (
        format!(
            "!has(self.{field}) || self.{field}.all(k, k.size() <= {MAX_KEY} && {} && k.matches('{KEY}'))",
            is_short("k")
        ),
        format!(
            "the keys of {field} must be names of at most 63 letters, digits, dashes, underscores and dots, with an optional \
             DNS subdomain of at most {MAX_DOMAIN} characters and a slash before them, such as example.com/team"
        ),
    )
}

pub(super) fn no_reserved_labels() -> (String, String) {
    cel(
        &format!(
            "!has(self.labels) || self.labels.all(k, {})",
            not_in("k", &LABEL_DOMAINS) + " && !(k in ['pod-template-hash', 'controller-revision-hash'])"
        ),
        "labels must not be in the domains mcp-fleet.dev, kubernetes.io and k8s.io or below them, nor be pod-template-hash or \
         controller-revision-hash, because selectors and controllers depend on those; use a domain of your own",
    )
}

pub(super) fn no_reserved_annotations() -> (String, String) {
    cel(
        &format!("!has(self.annotations) || self.annotations.all(k, {})", not_in("k", &ANNOTATION_DOMAINS)),
        "annotations must not be in the domains mcp-fleet.dev and kubectl.kubernetes.io or below them, which the operator and \
         kubectl write; use another domain",
    )
}

/// Returns a CEL expression for whether a key is in none of the domains.
fn not_in(key: &str, domains: &[&str]) -> String {
    let domains: Vec<_> = domains.iter().map(|domain| domain.replace('.', "[.]")).collect();
    format!("!{key}.matches('^([^/]*[.])?({})/')", domains.join("|"))
}

/// Schema of the value of a label.
#[derive(Debug)]
pub(super) struct LabelValue;

impl JsonSchema for LabelValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LabelValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 63,
            "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        })
    }
}

/// Schema of the value of an annotation.
#[derive(Debug)]
pub(super) struct AnnotationValue;

impl JsonSchema for AnnotationValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AnnotationValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 1024})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_selectors_and_controllers_depend_on_are_reserved() {
        for key in [
            "mcp-fleet.dev/server-uid",
            "x.mcp-fleet.dev/a",
            "app.kubernetes.io/component",
            "kubernetes.io/a",
            "statefulset.kubernetes.io/pod-name",
            "k8s.io/a",
            "pod-template-hash",
        ] {
            assert!(is_reserved_label(key), "{key}");
        }
        for key in ["team", "example.com/team", "notkubernetes.io/a", "kueue.x-k8s.io/queue-name", "k8s.io.example/a"] {
            assert!(!is_reserved_label(key), "{key}");
        }
        assert!(is_reserved_annotation("mcp-fleet.dev/config-version"));
        assert!(is_reserved_annotation("kubectl.kubernetes.io/restartedAt"));
        assert!(!is_reserved_annotation("cluster-autoscaler.kubernetes.io/safe-to-evict"));
    }
}
