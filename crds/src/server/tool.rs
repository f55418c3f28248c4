//! A tool of a server's catalogue.

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::units::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::argument::Argument;

/// A tool of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Name of the tool, as the server knows it.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_./-]+$"))]
    pub name: String,
    /// What it does to the world: Read, Write or Destructive. The server's own hints do not count.
    pub class: Class,
    /// The arguments that it takes; one that is not here is refused. Empty: it takes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub arguments: Vec<Argument>,
    /// What a call costs. Absent: nothing. Needs the tenant's `spendLimit`, which sets the currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

/// What a call of a tool costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// The price of one call, in the tenant's currency: a decimal string with at most six decimals, such as "0.001".
    pub per_call: Micros,
}
