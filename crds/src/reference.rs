//! References between objects in the same namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{DNS_1035, MAX_NAME};

/// Reference to an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// Name of the object. It must be in the same namespace.
    #[schemars(length(min = 1, max = MAX_NAME), regex(pattern = DNS_1035))]
    pub name: String,
}

impl From<&str> for Reference {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}
