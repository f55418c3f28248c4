//! Where pods run and what marks them, in the template of a workload. Pure.

use mcp_fleet_core::labels::Labels;
use mcp_fleet_crds::pod::{PodSettings, TopologySpread};
use serde_json::{Value, json};

/// Adds settings to the template of pods, which selectors find by `selector`. Labels and annotations of ours are stronger.
pub(crate) fn configure(template: &mut Value, settings: &PodSettings, selector: &Labels, kind: Kind) {
    let PodSettings {
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
        priority_class_name,
        runtime_class_name,
        labels,
        annotations,
    } = settings;
    for (field, marks) in [("labels", labels), ("annotations", annotations)] {
        for (key, value) in marks {
            if template["metadata"][field][key].is_null() {
                template["metadata"][field][key] = json!(value);
            }
        }
    }
    let pod = &mut template["spec"];
    if !node_selector.is_empty() {
        pod["nodeSelector"] = json!(node_selector);
    }
    if !tolerations.is_empty() {
        pod["tolerations"] = json!(tolerations);
    }
    if let Some(affinity) = affinity {
        pod["affinity"] = json!(affinity);
    }
    if !topology_spread_constraints.is_empty() {
        let spread = topology_spread_constraints.iter().map(|constraint| spread(constraint, selector, kind));
        pod["topologySpreadConstraints"] = spread.collect();
    }
    if let Some(name) = priority_class_name {
        pod["priorityClassName"] = json!(name);
    }
    if let Some(name) = runtime_class_name {
        pod["runtimeClassName"] = json!(name);
    }
}

/// Kind of the workload that has a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
}

/// Returns how the pods of a workload are spread.
fn spread(constraint: &TopologySpread, selector: &Labels, kind: Kind) -> Value {
    let mut spread = json!(constraint);
    spread["labelSelector"] = json!({"matchLabels": selector});
    if kind == Kind::Deployment {
        // Those of the former template are about to go.
        spread["matchLabelKeys"] = json!(["pod-template-hash"]);
    }
    spread
}
