//! The checkpoints of audit chains, as the operator stores them: in ConfigMaps, with one entry for each chain.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use mcp_fleet_audit::{Checkpoint, Digest, Head};
use serde::Deserialize;
use ulid::Ulid;

/// A ConfigMap, or a list of them.
#[derive(Deserialize)]
struct Object {
    kind: String,
    #[serde(default)]
    items: Vec<Object>,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// One entry.
#[derive(Deserialize)]
struct Entry {
    pod: String,
    sequence: u64,
    digest: Digest,
}

/// Reads checkpoints from what `kubectl get configmaps -o json` prints.
pub(super) fn read(text: &[u8]) -> anyhow::Result<Vec<Checkpoint>> {
    let object: Object = serde_json::from_slice(text).context("it is not an object of Kubernetes in JSON")?;
    let maps = match object.kind.as_str() {
        "List" | "ConfigMapList" => object.items,
        "ConfigMap" => vec![object],
        kind => bail!("it is a {kind}, but must be a ConfigMap or a list of them"),
    };
    let entries = maps.into_iter().flat_map(|map| map.data);
    let checkpoints = entries.map(|(chain, text)| {
        let id: Ulid = chain.parse().with_context(|| format!("{chain:?} is not the ID of a chain"))?;
        let Entry { pod, sequence, digest } =
            serde_json::from_str(&text).with_context(|| format!("the entry {chain} cannot be read"))?;
        Ok(Checkpoint { head: Head { chain: id, sequence, digest }, pod })
    });
    checkpoints.collect()
}
