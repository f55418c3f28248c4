//! A rendered object.

use std::fmt;

use kube::Resource;
use kube::api::ApiResource;
use mcp_fleet_core::labels::{self, Labels};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::APPLIED;
use crate::kubernetes::cache::Key;

/// An object as it is declared, before it is applied.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    /// API of the kind.
    pub resource: ApiResource,
    /// Namespace; none if the kind has none.
    pub namespace: Option<String>,
    pub name: String,
    /// The whole object.
    pub value: Value,
}

impl Rendered {
    /// Creates an object of kind `K` from JSON.
    pub(crate) fn json<K: Resource<DynamicType = ()>>(value: Value) -> Self {
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: text("namespace"),
            name: text("name").unwrap_or_default(),
            value,
        }
    }

    /// Returns the digest of the object.
    pub(super) fn digest_number(&self) -> u128 {
        let digest = Sha256::digest(self.value.to_string().as_bytes());
        digest.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte))
    }

    /// Returns the digest of the object: 32 hex digits.
    pub(crate) fn digest(&self) -> String {
        format!("{:032x}", self.digest_number())
    }

    /// Returns the key of the object in the index of owned objects.
    pub(crate) fn key(&self) -> Key {
        Key {
            kind: self.resource.kind.clone(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone(),
        }
    }

    /// Returns the object with its digest as an annotation.
    pub(super) fn digested(&self) -> Value {
        let mut value = self.value.clone();
        value["metadata"]["annotations"][APPLIED] = json!(self.digest());
        value
    }

    /// Returns the same, as a replacement of `live` and of no newer version.
    pub(super) fn replacing(&self, live: &Value) -> Value {
        let mut value = self.digested();
        for field in ["resourceVersion", "uid"] {
            value["metadata"][field] = live["metadata"][field].clone();
        }
        value
    }

    /// Whether the live object has the same owners.
    pub(super) fn same_owner(&self, live: &Value) -> bool {
        labels::same_owner(Some(&labels_of(live)), &labels_of(&self.value))
    }
}

fn labels_of(value: &Value) -> Labels {
    let labels = value["metadata"]["labels"].as_object();
    labels.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

impl fmt::Display for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.resource.kind, self.name),
            None => write!(f, "{} {}", self.resource.kind, self.name),
        }
    }
}
