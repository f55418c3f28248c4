//! References between objects of one namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::DNS_1035;

/// The name of another object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// Name of the object, in the same namespace.
    #[schemars(length(min = 1, max = 52), regex(pattern = DNS_1035))]
    pub name: String,
}

impl From<&str> for Reference {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}
