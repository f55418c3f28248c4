//! A few `local` PersistentVolumes and the default StorageClass. kubelet applies a pod's fsGroup to these, which it
//! does not to hostPath volumes, and they need no provisioner.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::layout::Layout;

/// How many volumes there are. One that was used is not given out again before the cluster is made anew.
const COUNT: usize = 24;
const SIZE: &str = "2Gi";
const CLASS: &str = "local";

/// Makes the volumes' folders, owned by root: a pod writes there only through its fsGroup.
pub fn create(layout: &Layout) -> Result<()> {
    for index in 0..COUNT {
        fs::create_dir_all(layout.path("volumes").join(name(index)))?;
    }
    Ok(())
}

/// The StorageClass and the PersistentVolumes, as JSON.
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
    let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [layout.node()]}]);
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
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}},
        },
    })
}

fn name(index: usize) -> String {
    format!("local-{index:02}")
}
