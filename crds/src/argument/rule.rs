//! Rules for values that hold no other values: the members of the union of argument types.

use mcp_fleet_policy::json::MAX_INTEGER;
use mcp_fleet_policy::rules::forms::{DECIMAL, EXTENSION, MAX_PATTERN, ROOT, VALUE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::integer;

/// Type of a value that may hold other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueType {
    /// A path at or below one of a set of directories.
    Path,
    /// One of a list of strings.
    Enum,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One fixed value.
    Const,
    /// A list.
    Array,
    /// An object.
    Object,
    /// An object whose properties have no fixed names.
    Map,
    /// A value of one of several types.
    OneOf,
    /// Any JSON.
    Json,
}

/// Type of a value at depth 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InnerType {
    /// A path at or below one of a set of directories.
    Path,
    /// One of a list of strings.
    Enum,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One fixed value.
    Const,
    /// A list.
    Array,
    /// An object.
    Object,
}

/// Type of a value at depth 5, or of an alternative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlainType {
    /// One of a list of strings.
    Enum,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One fixed value.
    Const,
}

/// The members of the union for types that hold no other values. At most one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlainRules {
    /// Rule for a path. For type Path only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRule>,
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

/// Rule for a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathRule {
    /// Directories, 1 to 8: absolute paths of at most 256 characters, without `.`, `..`, `//` or a trailing slash, without
    /// `*`, `?`, `[`, `{`, backslashes or control characters, and without names that begin with `~`. The value must be one
    /// of them or a path below one. Symbolic links are not followed: a path through a link is refused.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = ROOT.max_length), regex(pattern = ROOT.pattern)), extend("x-kubernetes-list-type" = "set"))]
    pub within: Vec<String>,
    /// Accepted file name extensions, at most 32, without the leading dot, such as `md` or `tar.gz`: letters, digits, `_`,
    /// `+` and `-`, with dots only between them, at most 32 characters. Empty: any name is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = EXTENSION.max_length), regex(pattern = EXTENSION.pattern)), extend("x-kubernetes-list-type" = "set"))]
    pub extensions: Vec<String>,
    /// Whether a name below the directory may begin with a dot: Deny or Allow. Default: Deny.
    #[serde(default)]
    pub dotfiles: DotFiles,
}

/// Whether a name in a path may begin with a dot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DotFiles {
    /// Such a path is refused.
    #[default]
    Deny,
    /// Such a path is accepted.
    Allow,
}

/// Rule for a value that must be one of a list of strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnumValues {
    /// Accepted strings, 1 to 128, each of at most 1024 characters and without U+0000.
    #[schemars(length(min = 1, max = 128), inner(length(max = 1024), regex(pattern = VALUE.pattern)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// Rule for a string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StringRule {
    /// Maximum length in characters (Unicode scalar values), 1 to 4000000.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 4_000_000))]
    pub max_length: u32,
    /// Regular expression that the whole string must match. Must begin with ^ and end with $, in ECMA-262 syntax
    /// without look-around, back references, flags or property classes. Absent: any string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = MAX_PATTERN))]
    pub pattern: Option<String>,
    /// Whether the value may begin with a dash, which a command line could read as an option: Deny or Allow. Default:
    /// Deny.
    #[serde(default)]
    pub leading_dash: Dash,
}

/// Whether a value may begin with a dash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Dash {
    /// Such a value is refused.
    #[default]
    Deny,
    /// Such a value is accepted.
    Allow,
}

/// Range of a whole number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntegerRange {
    /// Smallest accepted number, at least -9007199254740991, which is -(2^53 - 1).
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = -MAX_INTEGER, max = MAX_INTEGER))]
    pub minimum: i64,
    /// Largest accepted number, at most 9007199254740991, which is 2^53 - 1.
    #[serde(deserialize_with = "integer::required")]
    #[schemars(range(min = -MAX_INTEGER, max = MAX_INTEGER))]
    pub maximum: i64,
}

/// Range of a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NumberRange {
    /// Smallest accepted number: a decimal string such as "-0.5".
    #[schemars(length(min = 1, max = DECIMAL.max_length), regex(pattern = DECIMAL.pattern))]
    pub minimum: String,
    /// Largest accepted number: a decimal string such as "0.5".
    #[schemars(length(min = 1, max = DECIMAL.max_length), regex(pattern = DECIMAL.pattern))]
    pub maximum: String,
}

/// A fixed value. Exactly one member must be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Constant {
    /// The value as a string, at most 4096 characters, without U+0000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = VALUE.max_length), regex(pattern = VALUE.pattern))]
    pub string: Option<String>,
    /// The value as a whole number, at most 9007199254740991 (2^53 - 1) from zero.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -MAX_INTEGER, max = MAX_INTEGER))]
    pub integer: Option<i64>,
    /// The value as a boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boolean: Option<bool>,
}
