//! Decides whether a live object is as wanted. Pure.

use mcp_fleet_crds::quantity::billionths;
use serde_json::{Map, Value};

use super::APPLIED;
use super::rendered::Rendered;
use crate::kubernetes::FIELD_MANAGER;

/// What has to be done about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The live object is as wanted.
    Nothing,
    /// The object does not exist.
    Create,
    /// The declaration changed, or someone changed a value of ours.
    Apply,
    /// Someone else owns parts of the object, which merging would keep.
    Replace,
}

/// Decides what has to be done about one object.
pub(crate) fn decide(want: &Rendered, live: Option<&Value>) -> Action {
    let Some(live) = live else { return Action::Create };
    if is_foreign(live) {
        Action::Replace
    } else if live["metadata"]["annotations"][APPLIED] != Value::String(want.digest()) || !contains(live, &want.value) {
        // Applying would keep the fields that are no longer declared, because they belong to the creation.
        if was_created(live) { Action::Replace } else { Action::Apply }
    } else {
        Action::Nothing
    }
}

/// Whether the live object can be changed into the wanted one. The API server refuses to change a `roleRef`, and any data
/// of a `ConfigMap` that is marked as immutable.
pub(crate) fn can_become(live: &Value, want: &Rendered) -> bool {
    live["roleRef"] == want.value["roleRef"] && live["immutable"] != Value::Bool(true)
}

/// Whether another manager owns anything besides metadata and status. What controllers of Kubernetes write in status is not
/// drift, and neither is the annotation of `kubectl rollout restart`.
pub(crate) fn is_foreign(live: &Value) -> bool {
    // Only Kubernetes itself writes the spec of a namespace.
    if live["kind"] == "Namespace" {
        return false;
    }
    let entries = live["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten().any(|entry| {
        if entry["subresource"] == "status" || entry["manager"] == FIELD_MANAGER {
            return false;
        }
        let mut fields = entry["fieldsV1"].clone();
        if let Some(fields) = fields.as_object_mut() {
            fields.remove("f:metadata");
            fields.remove("f:status");
        }
        if let Some(Value::Object(annotations)) = fields.pointer_mut("/f:spec/f:template/f:metadata/f:annotations") {
            annotations.remove("f:kubectl.kubernetes.io/restartedAt");
        }
        has_leaf(&fields)
    })
}

/// Whether the operator created the object, instead of applying it. A namespace is never replaced: others may label it.
fn was_created(live: &Value) -> bool {
    if live["kind"] == "Namespace" {
        return false;
    }
    let entries = live["metadata"]["managedFields"].as_array();
    let is_creation = |entry: &Value| {
        entry["manager"] == FIELD_MANAGER && entry["operation"] == "Update" && entry["subresource"] != "status"
    };
    entries.into_iter().flatten().any(is_creation)
}

/// Whether a field set names any field. Its leaves are empty objects, and `.` is the parent itself.
fn has_leaf(fields: &Value) -> bool {
    fields.as_object().is_some_and(|fields| {
        fields.iter().any(|(name, below)| {
            name.starts_with("f:") && below.as_object().is_some_and(Map::is_empty)
                || name.starts_with("k:")
                || name.starts_with("v:")
                || has_leaf(below)
        })
    })
}

/// Whether the live value contains everything that is wanted. Lists must have the same length.
fn contains(live: &Value, want: &Value) -> bool {
    match (live, want) {
        (live, want) if is_empty(want) => is_empty(live),
        (Value::Object(live), Value::Object(want)) => {
            want.iter().all(|(key, want)| contains(live.get(key).unwrap_or(&Value::Null), want))
        }
        (Value::Array(live), Value::Array(want)) => {
            live.len() == want.len() && want.iter().all(|want| live.iter().any(|live| contains(live, want)))
        }
        (live, want) => live == want || same_quantity(live, want),
    }
}

/// Whether the API server would omit a value because it is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether two texts are the same quantity: the API server writes `1000m` as `1` and `1024Mi` as `1Gi`.
fn same_quantity(live: &Value, want: &Value) -> bool {
    let (Some(live), Some(want)) = (live.as_str(), want.as_str()) else { return false };
    matches!((billionths(live), billionths(want)), (Some(live), Some(want)) if live == want)
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;
    use serde_json::json;

    use super::*;

    fn want() -> Rendered {
        Rendered {
            resource: ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&()),
            namespace: Some("acme-mcp".into()),
            name: "gateway".into(),
            value: json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "gateway", "labels": {"mcp-fleet.dev/tenant-uid": "u-1"}},
                "spec": {"replicas": 1, "template": {"spec": {"containers": [
                    {"name": "gateway", "image": "mcp-pod:1", "resources": {"limits": {"cpu": "1000m"}}}
                ]}}}
            }),
        }
    }

    /// Returns the object as the API server holds it: with digest, defaults, canonical quantities and field owners.
    fn live(want: &Rendered) -> Value {
        let mut live = want.digested();
        live["metadata"]["resourceVersion"] = json!("7");
        live["metadata"]["managedFields"] = json!([
            {"manager": "mcp-fleet", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
             "fieldsV1": {"f:status": {"f:replicas": {}}}},
        ]);
        live["spec"]["template"]["spec"]["dnsPolicy"] = json!("ClusterFirst");
        live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("1");
        live
    }

    #[test]
    fn a_missing_object_is_created_and_a_right_one_is_left_alone() {
        assert_eq!(decide(&want(), None), Action::Create);
        assert_eq!(decide(&want(), Some(&live(&want()))), Action::Nothing);
    }

    #[test]
    fn a_changed_value_is_applied_again() {
        let mut live = live(&want());
        live["spec"]["replicas"] = json!(3);
        assert_eq!(decide(&want(), Some(&live)), Action::Apply);
    }

    #[test]
    fn a_field_that_is_no_longer_declared_is_removed() {
        let mut less = want();
        let live = live(&less);
        less.value["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("resources");
        assert_eq!(decide(&less, Some(&live)), Action::Apply);
    }

    #[test]
    fn an_object_that_was_created_is_replaced_as_a_whole() {
        let mut less = want();
        let mut live = live(&less);
        live["metadata"]["managedFields"][0]["operation"] = json!("Update");
        assert_eq!(decide(&less, Some(&live)), Action::Nothing);
        less.value["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("resources");
        assert_eq!(decide(&less, Some(&live)), Action::Replace);
    }

    #[test]
    fn a_container_that_someone_added_is_removed() {
        let mut live = live(&want());
        live["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "evil"}));
        let entry = json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {
            "f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"evil\"}": {".": {}, "f:name": {}}}}}}}});
        live["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
        assert_eq!(decide(&want(), Some(&live)), Action::Replace);
    }

    #[test]
    fn a_restart_and_metadata_of_others_are_not_drift() {
        let mut live = live(&want());
        let entry = json!({"manager": "kubectl", "operation": "Update", "fieldsV1": {
            "f:metadata": {"f:labels": {"f:team": {}}},
            "f:spec": {"f:template": {"f:metadata": {"f:annotations": {
                ".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}}}});
        live["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
        assert_eq!(decide(&want(), Some(&live)), Action::Nothing);
    }

    #[test]
    fn a_binding_to_another_role_cannot_become_ours() {
        let role = |name: &str| json!({"roleRef": {"kind": "ClusterRole", "name": name}});
        let binding = Rendered { value: role("ours"), ..want() };
        assert!(can_become(&role("ours"), &binding) && !can_become(&role("view"), &binding));
        let map = Rendered { value: json!({"data": {}}), ..want() };
        assert!(can_become(&json!({}), &map) && !can_become(&json!({"immutable": true}), &map));
    }

    #[test]
    fn a_replacement_names_the_version_it_replaces() {
        let value = want().replacing(&live(&want()));
        assert_eq!(value["metadata"]["resourceVersion"], "7");
        assert_eq!(value["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_empty_list_equals_an_absent_one() {
        assert!(contains(&json!({"a": 1}), &json!({"a": 1, "ingress": []})));
        assert!(!contains(&json!({"ingress": [1]}), &json!({"ingress": []})));
    }

    #[test]
    fn quantities_compare_by_value() {
        assert!(same_quantity(&json!("500m"), &json!("0.5")));
        assert!(same_quantity(&json!("1Gi"), &json!("1024Mi")));
        assert!(!same_quantity(&json!("1Gi"), &json!("1G")));
        assert!(!same_quantity(&json!("gateway"), &json!("other")));
    }
}
