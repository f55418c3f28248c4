//! A tool in the catalogue of an `MCPServer`.

use mcp_fleet_policy::built_in::BuiltIn;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::Polls;
use mcp_fleet_policy::price::POINTER;
use mcp_fleet_policy::units::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::argument::{Argument, MAX_ARGUMENTS};
use crate::names::{PORTABLE_TOOL_NAME, TOOL_NAME};
use crate::schema::rules;

/// A tool in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[not_built_in("self.name", "remove the tool")])))]
pub struct Tool {
    /// Name of the tool, exactly as the server reports it: letters, digits, `.`, `_`, `-`, `/`, `$`, and spaces that are neither first
    /// nor last. At most 128 characters. Scopes, audit lines and metrics use it.
    #[schemars(length(min = 1, max = TOOL_NAME.max_length), regex(pattern = TOOL_NAME.pattern))]
    pub name: String,
    /// Name by which agents see and call the tool instead of `name`: 1 to 64 letters, digits, `_` and `-`. No other tool of the
    /// server may have it as its `as`, or as its `name` if it has no `as`. Absent: `name`.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = PORTABLE_TOOL_NAME.max_length),
        regex(pattern = PORTABLE_TOOL_NAME.pattern),
        extend("x-kubernetes-validations" = rules(&[not_built_in("self", "use another one")]))
    )]
    pub alias: Option<String>,
    /// Name for people, at most 128 characters. Absent: the server's own, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub title: Option<String>,
    /// What agents read about the tool, at most 4096 characters. Absent: the server's own, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub description: Option<String>,
    /// Digest of the tool's definition as its server lists it: `sha256:` and 64 hexadecimal digits, of the definition in
    /// the canonical form of RFC 8785. A gateway logs it when it is another one than is named here. Agents see texts of no other definition, so a server cannot change what
    /// they read. Calls do not depend on it. Absent: agents see what the server says now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(equal = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub definition_digest: Option<String>,
    /// Effect of the tool. Read: changes nothing. Write: creates or changes something. Destructive: destroys something
    /// that cannot be recovered. The server's own annotations on the tool are ignored.
    pub class: Class,
    /// Arguments that the tool accepts, at most 128. A call with any other argument is refused. Empty: no arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ARGUMENTS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
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

impl Tool {
    /// Returns the name by which agents see and call the tool.
    pub fn wire_name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }
}

/// Returns the rule that a server's tool does not have the name of a built-in one. `name` is its name in CEL.
fn not_built_in(name: &str, advice: &str) -> (String, String) {
    let names = BuiltIn::ALL.map(|tool| format!("'{}'", tool.as_str())).join(", ");
    (format!("!({name} in [{names}])"), format!("this name is reserved for a built-in tool of MCP Fleet; {advice}"))
}

/// Price of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.perCall) != has(self.fromResult)", "a price is either perCall or fromResult; set one of them and remove the other"),
])))]
pub struct Price {
    /// Price of one call, in the tenant's currency: a decimal string with at most six decimals, such as "0.001", up to
    /// "1000000000". Absent: `fromResult` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_call: Option<Micros>,
    /// A price that the result of the call states. Absent: each call costs `perCall`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_result: Option<ResultPrice>,
}

/// A price that the result of a call states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultPrice {
    /// JSON Pointer (RFC 6901) to a number in the result's `structuredContent`: the price of the call, in units of the
    /// tenant's currency, such as /usage/cost. At most 256 characters. It is charged up to `max`, and decimals after the sixth are
    /// rounded up. A negative number counts as 0. Without a number there, the call costs `max`.
    #[schemars(length(min = 1, max = POINTER.max_length), regex(pattern = POINTER.pattern))]
    pub pointer: String,
    /// The most that one call costs, in the tenant's currency, up to "1000000000". Every budget that covers the call has to have
    /// this much left before it; what the result does not ask for is given back.
    pub max: Micros,
}
