//! Arguments of tools: typed values with bounds, nested to depth 5.
//!
//! A structural schema cannot be recursive, so the types spell out the nesting. The deeper a value is, the fewer types it
//! may have, because each doubles the size of the schema: at depth 4 only lists and objects hold other values, which are
//! plain values at depth 5.

mod convert;
mod rule;

use mcp_fleet_policy::rules::forms::ARGUMENT_NAME;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::integer;
use crate::schema::{list_of_nested, nested};

pub use convert::{ArgumentError, arguments};
pub use rule::{
    Constant, Dash, DotFiles, EnumValues, InnerType, IntegerRange, NumberRange, PathRule, PlainRules, PlainType,
    StringRule, ValueType,
};

/// Most tools of a server, or in a scope.
pub const MAX_TOOLS: usize = 512;
/// Most arguments of a tool.
pub const MAX_ARGUMENTS: usize = 128;
/// Most arguments of all tools of a server, or in a scope. An admission policy counts them.
pub const MAX_ALL_ARGUMENTS: usize = 4096;

/// An argument of a tool, with its nested values.
pub type Argument = Property<Value<Value<Value<Inner<Plain>>>>>;

/// A named value: an argument of a tool, or a property of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Property<V> {
    /// Name of the argument or property: 1 to 128 characters, no control characters, and not `__proto__`.
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
    /// Type of the value: Path, Enum, String, Integer, Number, Boolean, Const, Array, Object, Map, OneOf or Json. The
    /// member for the type must be set and no other; Boolean has no member.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// If true, `null` is accepted and forwarded. Absent: it is not, and for an optional argument it counts as absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
    /// Members for the types that hold no other values.
    #[serde(flatten)]
    pub plain: PlainRules,
    /// Rule for the items of a list. For type Array only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<Items<V>>,
    /// Properties of an object. For type Object only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Properties<V>>,
    /// Rule for an object whose properties have no fixed names. For type Map only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Entries<V>>,
    /// Rules of which a value must satisfy one. For type OneOf only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Alternatives>,
    /// Bounds of a value that may be any JSON. For type Json only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonBounds>,
}

/// Rule for a value at depth 4. A union: `type` names the member that must be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
pub struct Inner<V> {
    /// Type of the value: Path, Enum, String, Integer, Number, Boolean, Const, Array or Object.
    #[serde(rename = "type")]
    pub kind: InnerType,
    /// If true, `null` is accepted and forwarded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
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

/// Rule for a value that holds no other values and is no path. A union: `type` names the member that must be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plain {
    /// Type of the value: Enum, String, Integer, Number, Boolean or Const. The member for the type must be set and no
    /// other; Boolean has no member.
    #[serde(rename = "type")]
    pub kind: PlainType,
    /// If true, `null` is accepted and forwarded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
    /// Accepted strings. For type Enum only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#enum: Option<EnumValues>,
    /// Rule for a string. For type String only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string: Option<StringRule>,
    /// Range of a whole number. For type Integer only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<IntegerRange>,
    /// Range of a number. For type Number only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<NumberRange>,
    /// The one accepted value. For type Const only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#const: Option<Constant>,
}

/// Rule for a list of values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
#[schemars(bound = "V: JsonSchema")]
pub struct Items<V> {
    /// Rule for every item.
    #[schemars(schema_with = "nested::<V>")]
    pub items: Box<V>,
    /// Maximum number of items, 1 to 10000.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_items: u32,
}

/// Rule for an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
#[schemars(bound = "V: JsonSchema")]
pub struct Properties<V> {
    /// Properties that the object may have, 1 to 32. Any other property is refused.
    #[schemars(schema_with = "list_of_nested::<Property<V>>", length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub properties: Vec<Property<V>>,
}

/// Rule for an object whose properties have no fixed names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "V: DeserializeOwned", serialize = "V: Serialize"))]
#[schemars(bound = "V: JsonSchema")]
pub struct Entries<V> {
    /// Rule for every name. `__proto__` is refused in any case.
    pub names: StringRule,
    /// Rule for every value.
    #[schemars(schema_with = "nested::<V>")]
    pub values: Box<V>,
    /// Maximum number of properties, 1 to 1000.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_properties: u32,
}

/// Rules of which a value must satisfy one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alternatives {
    /// Rules, 2 to 8: of type Enum, String, Integer, Number, Boolean or Const, without `nullable`.
    #[schemars(length(min = 2, max = 8))]
    pub rules: Vec<Plain>,
}

/// Bounds of a value that may be any JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JsonBounds {
    /// Maximum number of bytes in compact form, 1 to 1048576.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_bytes: u32,
    /// Maximum number of levels of lists and objects, 0 to 16. 0: plain values only.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = 0, max = 16))]
    pub max_depth: u32,
}

/// A value at any depth, of which it can be asked whether it may hold any JSON.
pub trait Wide {
    /// Returns whether the value, or one in it, is of type Json as it is written. Nothing is compiled.
    fn is_wide(&self) -> bool;
}

impl<V: Wide> Wide for Property<V> {
    fn is_wide(&self) -> bool {
        self.value.is_wide()
    }
}

impl<V: Wide> Wide for Value<V> {
    fn is_wide(&self) -> bool {
        self.kind == ValueType::Json
            || self.array.as_ref().is_some_and(|list| list.items.is_wide())
            || self.object.as_ref().is_some_and(|object| object.properties.iter().any(Wide::is_wide))
            || self.map.as_ref().is_some_and(|map| map.values.is_wide())
    }
}

impl<V> Wide for Inner<V> {
    /// Below depth 3, there is no type Json.
    fn is_wide(&self) -> bool {
        false
    }
}
