//! Arguments of tools: typed, narrow, nested to depth 3.
//!
//! A structural schema cannot recurse, so the nesting is unrolled by types: a value at depth 1 holds values at depth 2,
//! which hold plain values at depth 3.

mod convert;
mod rule;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use convert::{ArgumentError, arguments};
pub use rule::{
    Constant, Dash, DotFiles, EnumValues, IntegerRange, NumberRange, PathRule, PlainRules, PlainType, StringRule,
    ValueType,
};

/// An argument of a tool, with everything that may be nested in it.
pub type Argument = Property<Value<Value<Plain>>>;

/// One property of an object; an argument is a property of the object that `tools/call` carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Property<V> {
    /// Name of the argument.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// A call without it is refused. Default: false.
    #[serde(default)]
    pub required: bool,
    /// What its value may be.
    #[serde(flatten)]
    pub value: V,
}

/// What a value may be, where it may hold other values. A union: `type` names the member that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Value<V> {
    /// Path, Enum, String, Integer, Number, Boolean, Const, Array or Object.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// The member for a type that holds no other values.
    #[serde(flatten)]
    pub plain: PlainRules,
    /// For type Array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<Items<V>>,
    /// For type Object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Properties<V>>,
}

/// What a value may be, where it may hold no other values. A union: `type` names the member that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plain {
    /// Path, Enum, String, Integer, Number, Boolean or Const.
    #[serde(rename = "type")]
    pub kind: PlainType,
    /// The member.
    #[serde(flatten)]
    pub plain: PlainRules,
}

/// A list of values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Items<V> {
    /// What each item may be.
    pub items: Box<V>,
    /// The most items that are accepted.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_items: u32,
}

/// An object with these properties and no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Properties<V> {
    /// The properties; one that is not here is refused.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub properties: Vec<Property<V>>,
}
