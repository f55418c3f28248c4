//! Arguments of tools: typed values with bounds, nested to depth 3.
//!
//! A structural schema cannot be recursive, so the types spell out the nesting: a value at depth 1 holds values at
//! depth 2, which hold plain values at depth 3.

mod convert;
mod rule;

use mcp_fleet_policy::rules::forms::ARGUMENT_NAME;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::integer;

pub use convert::{ArgumentError, arguments};
pub use rule::{
    Constant, Dash, DotFiles, EnumValues, IntegerRange, NumberRange, PathRule, PlainRules, PlainType, StringRule,
    ValueType,
};

/// Most tools of a server, or in a scope.
pub const MAX_TOOLS: usize = 512;
/// Most arguments of a tool.
pub const MAX_ARGUMENTS: usize = 128;
/// Most arguments of all tools of a server, or in a scope. An admission policy counts them.
pub const MAX_ALL_ARGUMENTS: usize = 4096;

/// An argument of a tool, with its nested values.
pub type Argument = Property<Value<Value<Plain>>>;

/// A named value: an argument of a tool, or a property of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Property<V> {
    /// Name of the argument or property: 1 to 128 characters, no control characters.
    #[schemars(length(min = 1, max = ARGUMENT_NAME.max_length), regex(pattern = ARGUMENT_NAME.pattern))]
    pub name: String,
    /// If true, a call without this argument or property is refused. Default: false.
    #[serde(default)]
    pub required: bool,
    /// Name for people, at most 128 characters. Absent: the server's own, if it has one. In a scope, it replaces that of
    /// the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub title: Option<String>,
    /// What agents read about it, at most 1024 characters. Absent: the server's own, if it has one. In a scope, it
    /// replaces that of the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub description: Option<String>,
    /// Rule for the value.
    #[serde(flatten)]
    pub value: V,
}

/// Rule for a value that may hold other values. A union: `type` names the member that must be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Value<V> {
    /// Type of the value: Path, Enum, String, Integer, Number, Boolean, Const, Array or Object. The member for the type
    /// must be set and no other; Boolean has no member.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// Members for the types that hold no other values.
    #[serde(flatten)]
    pub plain: PlainRules,
    /// Rule for the items of a list. For type Array only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<Items<V>>,
    /// Properties of an object. For type Object only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Properties<V>>,
}

/// Rule for a value that holds no other values. A union: `type` names the member that must be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plain {
    /// Type of the value: Path, Enum, String, Integer, Number, Boolean or Const. The member for the type must be set
    /// and no other; Boolean has no member.
    #[serde(rename = "type")]
    pub kind: PlainType,
    /// Members for the types.
    #[serde(flatten)]
    pub plain: PlainRules,
}

/// Rule for a list of values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Items<V> {
    /// Rule for every item.
    pub items: Box<V>,
    /// Maximum number of items, 1 to 10000.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_items: u32,
}

/// Rule for an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Properties<V> {
    /// Properties that the object may have, 1 to 32. Any other property is refused.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub properties: Vec<Property<V>>,
}
