//! What the pods of a server are like: what its spec asks for, within what its tenant requires and allows. Pure.

use std::collections::BTreeMap;

use mcp_fleet_crds::pod::{
    Affinity, AllowedPodSettings, PodSettings, ServerPods, Toleration, TopologySpread, WhenUnsatisfiable,
    is_free_node_label, is_reserved_annotation, is_reserved_label,
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
        node_labels,
        tolerations: allowed_tolerations,
        priority_class_names,
        runtime_class_names,
        labels: allowed_labels,
        annotations: allowed_annotations,
    } = allowed;
    let PodSettings { affinity, topology_spread_constraints, .. } = wanted;
    check_node_labels(ceiling, node_labels, wanted)?;
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

/// Checks that nodes are chosen by labels only by which the tenant lets a server choose. Where nodes are made for the pods that wait
/// for them, a label also says which machine is made; and one of a single node concentrates pods there.
fn check_node_labels(ceiling: &ServerPods, allowed: &[String], wanted: &PodSettings) -> Result<(), String> {
    // What all nodes of the tenant have chooses nothing.
    let is_allowed = |key: &str| {
        is_free_node_label(key)
            || ceiling.node_selector.contains_key(key)
            || allowed.iter().any(|pattern| covers(pattern, key))
    };
    let selected = wanted.node_selector.keys().map(|key| ("nodeSelector".to_owned(), key));
    let required = wanted.affinity.iter().flat_map(required_or_preferred);
    let spread = wanted.topology_spread_constraints.iter().enumerate();
    let spread = spread.filter(|(_, spread)| !spreads_over_nodes(spread));
    let spread = spread.map(|(index, it)| (format!("topologySpreadConstraints[{index}]"), &it.topology_key));
    match selected.chain(required).chain(spread).find(|(_, key)| !is_allowed(key)) {
        None => Ok(()),
        Some((field, key)) => Err(format!(
            "the tenant's serverPods.allowed.nodeLabels does not cover {key}; remove it from pod.{field}, or ask the platform \
             team"
        )),
    }
}

/// Returns the fields that name labels of nodes, and these.
fn required_or_preferred(affinity: &Affinity) -> impl Iterator<Item = (String, &String)> {
    let nodes = affinity.node_affinity.iter();
    let required = nodes.clone().filter_map(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let required = required.flat_map(|it| &it.node_selector_terms).map(|term| ("required", term));
    let preferred = nodes.flat_map(|it| &it.preferred_during_scheduling_ignored_during_execution);
    let preferred = preferred.map(|it| ("preferred", &it.preference));
    required.chain(preferred).flat_map(|(kind, term)| {
        let field = format!("affinity.nodeAffinity.{kind}DuringSchedulingIgnoredDuringExecution");
        term.match_expressions.iter().map(move |it| (field.clone(), &it.key))
    })
}

/// Whether a constraint only prefers that pods are on different nodes.
fn spreads_over_nodes(spread: &TopologySpread) -> bool {
    spread.topology_key == "kubernetes.io/hostname" && spread.when_unsatisfiable == WhenUnsatisfiable::ScheduleAnyway
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
    fn by_default_a_server_chooses_nodes_by_platform_and_zone_only() {
        let none = ServerPods::default();
        let narrower = json!({
            "nodeSelector": {"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/region", "operator": "Exists"}]}]}}},
            "topologySpreadConstraints": [
                {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"},
                {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}],
        });
        assert_eq!(narrow(&none, &pod(narrower.clone())), Ok(pod(narrower)));
        let term = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term("gpu")]}});
        let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": term("kubernetes.io/hostname")}]});
        let spread = |key: &str, when: &str| json!({"topologySpreadConstraints": [{"topologyKey": key, "whenUnsatisfiable": when}]});
        for (wanted, field) in [
            (json!({"nodeSelector": {"disk": "ssd"}}), "pod.nodeSelector,"),
            (json!({"nodeSelector": {"kubernetes.io/hostname": "node-1"}}), "pod.nodeSelector,"),
            (json!({"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}), "pod.nodeSelector,"),
            (json!({"affinity": {"nodeAffinity": required}}), "pod.affinity.nodeAffinity.requiredDuring"),
            (json!({"affinity": {"nodeAffinity": preferred}}), "pod.affinity.nodeAffinity.preferredDuring"),
            (spread("kubernetes.io/hostname", "DoNotSchedule"), "pod.topologySpreadConstraints[0],"),
            (spread("rack", "ScheduleAnyway"), "pod.topologySpreadConstraints[0],"),
        ] {
            let message = refused(&none, wanted.clone());
            assert!(message.contains("allowed.nodeLabels does not cover") && message.contains(field), "{message}");
            let all = ["disk", "gpu", "rack", "kubernetes.io/*", "node-role.kubernetes.io/*"];
            let all = ceiling(json!({"allowed": {"nodeLabels": all}}));
            assert_eq!(narrow(&all, &pod(wanted.clone())), Ok(pod(wanted)));
        }
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
                "nodeLabels": ["disk"],
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
