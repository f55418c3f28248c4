//! What the pods of a server are like: what its spec asks for, within what its tenant requires and allows. Pure.

use std::collections::BTreeMap;

use mcp_fleet_crds::pod::{
    AllowedPodSettings, PodSettings, ServerPods, Toleration, is_reserved_annotation, is_reserved_label,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Returns what the pods of a server are like. The error says what the tenant does not allow, and what to do.
pub(super) fn narrow(ceiling: &ServerPods, wanted: &PodSettings) -> Result<PodSettings, String> {
    let ServerPods {
        node_selector,
        tolerations,
        priority_class_name,
        runtime_class_name,
        labels,
        annotations,
        allowed,
    } = ceiling;
    let AllowedPodSettings {
        tolerations: allowed_tolerations,
        priority_class_names,
        runtime_class_names,
        labels: allowed_labels,
        annotations: allowed_annotations,
    } = allowed;
    // Both only narrow where pods run, so they need no permission.
    let PodSettings { affinity, topology_spread_constraints, .. } = wanted;
    Ok(PodSettings {
        node_selector: selector(node_selector, &wanted.node_selector)?,
        tolerations: tolerated(tolerations, allowed_tolerations, &wanted.tolerations)?,
        affinity: affinity.clone(),
        topology_spread_constraints: topology_spread_constraints.clone(),
        priority_class_name: class(
            ("priorityClassName", "priorityClassNames"),
            (priority_class_name.as_ref(), priority_class_names),
            wanted.priority_class_name.as_ref(),
        )?,
        runtime_class_name: class(
            ("runtimeClassName", "runtimeClassNames"),
            (runtime_class_name.as_ref(), runtime_class_names),
            wanted.runtime_class_name.as_ref(),
        )?,
        labels: marks("labels", is_reserved_label, (labels, allowed_labels), &wanted.labels)?,
        annotations: marks(
            "annotations",
            is_reserved_annotation,
            (annotations, allowed_annotations),
            &wanted.annotations,
        )?,
    })
}

/// Returns what pods are like that run although their server asks for what its tenant does not allow: as they are, with what the
/// tenant requires.
pub(super) fn impose(ceiling: &ServerPods, live: PodSettings) -> PodSettings {
    let ServerPods {
        node_selector,
        tolerations,
        priority_class_name,
        runtime_class_name,
        labels,
        annotations,
        allowed,
    } = ceiling;
    let class = |default: &Option<String>, allowed: &[String], live: Option<String>| match default {
        Some(default) => live.filter(|name| allowed.contains(name)).or_else(|| Some(default.clone())),
        None => live,
    };
    let mut all_tolerations = tolerations.clone();
    all_tolerations.extend(live.tolerations.into_iter().filter(|live| !tolerations.contains(live)));
    PodSettings {
        node_selector: merged(&live.node_selector, node_selector),
        tolerations: all_tolerations,
        affinity: live.affinity,
        topology_spread_constraints: live.topology_spread_constraints,
        priority_class_name: class(priority_class_name, &allowed.priority_class_names, live.priority_class_name),
        runtime_class_name: class(runtime_class_name, &allowed.runtime_class_names, live.runtime_class_name),
        labels: merged(&live.labels, labels),
        annotations: merged(&live.annotations, annotations),
    }
}

/// Reads what pods are like back from the template of a workload. None if it cannot be read.
pub(super) fn read(template: &Value) -> Option<PodSettings> {
    let spec = &template["spec"];
    let own = |marks: &Value, is_reserved: fn(&str) -> bool| {
        let mut marks: BTreeMap<String, String> = field(marks)?;
        marks.retain(|key, _| !is_reserved(key));
        Some(marks)
    };
    Some(PodSettings {
        node_selector: field(&spec["nodeSelector"])?,
        tolerations: field(&spec["tolerations"])?,
        affinity: field(&spec["affinity"])?,
        topology_spread_constraints: field(&spec["topologySpreadConstraints"])?,
        priority_class_name: field(&spec["priorityClassName"])?,
        runtime_class_name: field(&spec["runtimeClassName"])?,
        labels: own(&template["metadata"]["labels"], is_reserved_label)?,
        annotations: own(&template["metadata"]["annotations"], is_reserved_annotation)?,
    })
}

/// Reads a field, or its default if it is absent.
fn field<T: DeserializeOwned + Default>(value: &Value) -> Option<T> {
    if value.is_null() { Some(T::default()) } else { serde_json::from_value(value.clone()).ok() }
}

type Map = BTreeMap<String, String>;

fn selector(required: &Map, wanted: &Map) -> Result<Map, String> {
    let conflict = wanted.iter().find_map(|(key, value)| {
        let other = required.get(key).filter(|other| *other != value)?;
        Some(format!(
            "pod.nodeSelector asks for nodes with {key}={value}, and the tenant's serverPods.nodeSelector requires \
             {key}={other}; remove {key}"
        ))
    });
    conflict.map_or_else(|| Ok(merged(required, wanted)), Err)
}

fn tolerated(all: &[Toleration], allowed: &[Toleration], wanted: &[Toleration]) -> Result<Vec<Toleration>, String> {
    let is_allowed = |wanted: &Toleration| all.iter().chain(allowed).any(|allowed| allowed.covers(wanted));
    if let Some(index) = wanted.iter().position(|wanted| !is_allowed(wanted)) {
        return Err(format!(
            "no entry of the tenant's serverPods.allowed.tolerations covers pod.tolerations[{index}]; remove or narrow it, \
             or ask the platform team"
        ));
    }
    let mut tolerations = all.to_vec();
    for toleration in wanted {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    Ok(tolerations)
}

fn class(
    (field, list): (&str, &str),
    (default, allowed): (Option<&String>, &[String]),
    wanted: Option<&String>,
) -> Result<Option<String>, String> {
    match wanted {
        None => Ok(default.cloned()),
        Some(name) if default == Some(name) || allowed.contains(name) => Ok(Some(name.clone())),
        Some(name) => Err(format!(
            "the tenant's serverPods.allowed.{list} does not contain {name}; remove pod.{field}, or ask the platform team"
        )),
    }
}

fn marks(
    field: &str,
    is_reserved: fn(&str) -> bool,
    (all, allowed): (&Map, &[String]),
    wanted: &Map,
) -> Result<Map, String> {
    for (key, value) in wanted {
        match all.get(key) {
            _ if is_reserved(key) => {
                return Err(format!("{key} of pod.{field} is reserved; use a key in a domain of your own"));
            }
            Some(other) if other == value => {}
            Some(_) => return Err(format!("the tenant's serverPods.{field} sets {key}; remove it from pod.{field}")),
            None if allowed.iter().any(|pattern| covers(pattern, key)) => {}
            None => {
                return Err(format!(
                    "the tenant's serverPods.allowed.{field} does not cover {key}; remove it from pod.{field}, or ask the \
                     platform team"
                ));
            }
        }
    }
    Ok(merged(all, wanted))
}

/// Whether a pattern, a key or `domain/*`, covers a key.
fn covers(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(domain) => domain.ends_with('/') && key.starts_with(domain),
        None => pattern == key,
    }
}

fn merged(one: &Map, other: &Map) -> Map {
    one.iter().chain(other).map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ceiling(value: Value) -> ServerPods {
        serde_json::from_value(value).unwrap()
    }

    fn pod(value: Value) -> PodSettings {
        serde_json::from_value(value).unwrap()
    }

    fn refused(ceiling: &ServerPods, wanted: Value) -> String {
        narrow(ceiling, &pod(wanted)).unwrap_err()
    }

    #[test]
    fn by_default_a_server_can_only_narrow_where_its_pods_run() {
        let none = ServerPods::default();
        let narrower = json!({
            "nodeSelector": {"disk": "ssd"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}}},
            "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}],
        });
        assert_eq!(narrow(&none, &pod(narrower.clone())), Ok(pod(narrower)));
        for (wanted, way_out) in [
            (json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]}), "allowed.tolerations"),
            (json!({"priorityClassName": "system-cluster-critical"}), "allowed.priorityClassNames"),
            (json!({"runtimeClassName": "runc"}), "allowed.runtimeClassNames"),
            (json!({"labels": {"team": "a"}}), "allowed.labels"),
            (json!({"annotations": {"k8s.v1.cni.cncf.io/networks": "other"}}), "allowed.annotations"),
        ] {
            let message = refused(&none, wanted);
            assert!(message.contains(way_out) && message.contains("ask the platform team"), "{message}");
        }
    }

    #[test]
    fn a_server_gets_what_its_tenant_sets_and_what_it_allows() {
        let ceiling = ceiling(json!({
            "nodeSelector": {"pool": "tools"},
            "tolerations": [{"key": "pool", "value": "tools"}],
            "priorityClassName": "low",
            "runtimeClassName": "kata",
            "labels": {"cost": "acme"},
            "annotations": {"sidecar.istio.io/inject": "false"},
            "allowed": {
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "priorityClassNames": ["lower"],
                "runtimeClassNames": ["kata-gpu"],
                "labels": ["example.com/*", "team"],
                "annotations": ["example.com/note"],
            },
        }));
        let of_tenant = narrow(&ceiling, &PodSettings::default()).unwrap();
        assert_eq!(
            of_tenant,
            pod(json!({
                "nodeSelector": {"pool": "tools"},
                "tolerations": [{"key": "pool", "value": "tools"}],
                "priorityClassName": "low",
                "runtimeClassName": "kata",
                "labels": {"cost": "acme"},
                "annotations": {"sidecar.istio.io/inject": "false"},
            }))
        );
        let wanted = json!({
            "nodeSelector": {"disk": "ssd", "pool": "tools"},
            "tolerations": [{"key": "gpu", "value": "a100", "effect": "NoSchedule"}, {"key": "pool", "value": "tools"}],
            "priorityClassName": "lower",
            "runtimeClassName": "kata-gpu",
            "labels": {"example.com/a": "1", "team": "b", "cost": "acme"},
            "annotations": {"example.com/note": "n"},
        });
        let both = pod(json!({
            "nodeSelector": {"disk": "ssd", "pool": "tools"},
            "tolerations": [{"key": "pool", "value": "tools"}, {"key": "gpu", "value": "a100", "effect": "NoSchedule"}],
            "priorityClassName": "lower",
            "runtimeClassName": "kata-gpu",
            "labels": {"example.com/a": "1", "team": "b", "cost": "acme"},
            "annotations": {"example.com/note": "n", "sidecar.istio.io/inject": "false"},
        }));
        assert_eq!(narrow(&ceiling, &pod(wanted)), Ok(both));
        for (wanted, why) in [
            (json!({"nodeSelector": {"pool": "system"}}), "requires pool=tools"),
            (json!({"tolerations": [{"operator": "Exists"}]}), "covers pod.tolerations[0]"),
            (json!({"labels": {"cost": "other"}}), "serverPods.labels sets cost"),
            (json!({"annotations": {"sidecar.istio.io/inject": "true"}}), "serverPods.annotations sets"),
            (json!({"labels": {"example.com.evil/a": "1"}}), "does not cover example.com.evil/a"),
        ] {
            let message = refused(&ceiling, wanted);
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn what_selectors_depend_on_is_reserved_whatever_the_tenant_allows() {
        let all = ceiling(json!({"allowed": {"labels": ["mcp-fleet.dev/*", "app.kubernetes.io/component"],
            "annotations": ["mcp-fleet.dev/*"]}}));
        for key in ["mcp-fleet.dev/server-uid", "app.kubernetes.io/component"] {
            assert!(refused(&all, json!({"labels": {key: "gateway"}})).contains("is reserved"));
        }
        assert!(refused(&all, json!({"annotations": {"mcp-fleet.dev/config-version": "1"}})).contains("is reserved"));
    }
}
