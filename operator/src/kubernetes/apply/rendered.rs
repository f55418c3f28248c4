//! An object as it is wanted.

use std::fmt;
use std::fmt::Write as _;

use kube::Resource;
use kube::api::ApiResource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::APPLIED;
use crate::kubernetes::labels::{self, Labels};

/// An object as it is wanted, with where it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    /// Its kind.
    pub resource: ApiResource,
    /// Its namespace; none if the kind has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What is declared, in full.
    pub value: Value,
}

impl Rendered {
    /// An object that is written as JSON, of kind `K`.
    pub(crate) fn json<K: Resource<DynamicType = ()>>(value: Value) -> Self {
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: text("namespace"),
            name: text("name").unwrap_or_default(),
            value,
        }
    }

    /// The digest of what is declared: 32 hex digits.
    pub(crate) fn digest(&self) -> String {
        let digest = Sha256::digest(self.value.to_string().as_bytes());
        digest.iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// What is declared, with its digest as an annotation.
    pub(super) fn digested(&self) -> Value {
        let mut value = self.value.clone();
        value["metadata"]["annotations"][APPLIED] = json!(self.digest());
        value
    }

    /// The same, to replace `live` and nothing newer.
    pub(super) fn replacing(&self, live: &Value) -> Value {
        let mut value = self.digested();
        for field in ["resourceVersion", "uid"] {
            value["metadata"][field] = live["metadata"][field].clone();
        }
        value
    }

    /// Whether the live object has the owners that this one names.
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
