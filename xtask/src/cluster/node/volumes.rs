//! `local` PersistentVolumes and the default StorageClass. These volumes need no provisioner, and kubelet applies the
//! fsGroup of a pod to them, which it does not do for hostPath volumes.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::layout::Layout;

/// Number of volumes. A used volume is not assigned again until the cluster is recreated.
const COUNT: usize = 24;
const SIZE: &str = "2Gi";
const CLASS: &str = "local";

/// Creates the folders of the volumes. They belong to root, so a pod can write to them only through its fsGroup.
pub fn create(layout: &Layout) -> Result<()> {
    for index in 0..COUNT {
        fs::create_dir_all(layout.path("volumes").join(name(index)))?;
    }
    Ok(())
}

/// Returns the StorageClass and the PersistentVolumes as JSON.
pub fn manifests(layout: &Layout) -> Result<Vec<u8>> {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let items: Vec<Value> = std::iter::once(class).chain((0..COUNT).map(|index| volume(layout, index))).collect();
    Ok(serde_json::to_vec(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?)
}

fn volume(layout: &Layout, index: usize) -> Value {
    let on_this_node = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [layout.node()]}]);
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name(index)},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": layout.path("volumes").join(name(index))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": on_this_node}]}},
        },
    })
}

fn name(index: usize) -> String {
    format!("local-{index:02}")
}
