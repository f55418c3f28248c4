//! A tool in the catalogue of an `MCPServer`.

use mcp_fleet_policy::built_in::BuiltIn;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::Polls;
use mcp_fleet_policy::units::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::argument::Argument;
use crate::names::TOOL_NAME;
use crate::schema::rules;

/// A tool in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[not_built_in()])))]
pub struct Tool {
    /// Name of the tool, exactly as the server reports it. At most 128 characters.
    #[schemars(length(min = 1, max = TOOL_NAME.max_length), regex(pattern = TOOL_NAME.pattern))]
    pub name: String,
    /// Effect of the tool. Read: changes nothing. Write: creates or changes something. Destructive: destroys something
    /// that cannot be recovered. The server's own annotations on the tool are ignored.
    pub class: Class,
    /// Arguments that the tool accepts, at most 32. A call with any other argument is refused. Empty: no arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub arguments: Vec<Argument>,
    /// Price of the tool. Requires the tenant's `spendLimit`, which sets the currency. Absent: calls are free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// What happens if the tool is polled and its result does not change. Limited: the caller is warned, and has to pause
    /// longer and longer between its polls. Tolerated: nothing, because the tool is made to be polled; its failures still
    /// count. Default: Limited.
    #[serde(default)]
    pub polls: Polls,
}

/// Returns the rule that a server's tool does not have the name of a built-in one.
fn not_built_in() -> (String, String) {
    let names = BuiltIn::ALL.map(|tool| format!("'{}'", tool.as_str())).join(", ");
    (
        format!("!(self.name in [{names}])"),
        "this name is reserved for a built-in tool of MCP Fleet; remove the tool".into(),
    )
}

/// Price of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Price of one call, in the tenant's currency: a decimal string with at most six decimals, such as "0.001", up to
    /// "1000000000".
    pub per_call: Micros,
}
