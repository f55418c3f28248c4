//! The members of the union of argument types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of a value that may hold other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueType {
    /// A path below a root.
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
    /// Exactly one value.
    Const,
    /// A list.
    Array,
    /// An object.
    Object,
}

/// Types of a value that holds no other values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlainType {
    /// A path below a root.
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
    /// Exactly one value.
    Const,
}

/// The members of the union for types that hold no other values; at most one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlainRules {
    /// For type Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRule>,
    /// For type Enum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#enum: Option<EnumValues>,
    /// For type String.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string: Option<StringRule>,
    /// For type Integer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<IntegerRange>,
    /// For type Number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<NumberRange>,
    /// For type Const.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#const: Option<Constant>,
}

/// A path below a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathRule {
    /// Absolute directories without `.`, `..`, `//` or a slash at the end. The path must be one of them or lie below
    /// one, before and after links are followed.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256), regex(pattern = "^/")), extend("x-kubernetes-list-type" = "set"))]
    pub within: Vec<String>,
    /// Extensions that the last part may have, without the dot. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32), regex(pattern = "^[A-Za-z0-9_+-]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub extensions: Vec<String>,
    /// Names that begin with a dot: Deny or Allow. Default: Deny.
    #[serde(default)]
    pub dotfiles: DotFiles,
}

/// Whether names that begin with a dot are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DotFiles {
    /// They are refused.
    #[default]
    Deny,
    /// They are accepted.
    Allow,
}

/// One of a list of strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnumValues {
    /// The strings that are accepted.
    #[schemars(length(min = 1, max = 128), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// A string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StringRule {
    /// The most characters (Unicode scalar values) that are accepted.
    #[schemars(range(min = 1, max = 4_000_000))]
    pub max_length: u32,
    /// A regular expression that the whole string has to match: anchored with ^ and $, in the subset that ECMA-262 and
    /// RE2 share. Absent: any string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024))]
    pub pattern: Option<String>,
    /// A value that begins with a dash, which a command line could read as an option: Deny or Allow. Default: Deny.
    #[serde(default)]
    pub leading_dash: Dash,
}

/// Whether a value may begin with a dash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Dash {
    /// It is refused.
    #[default]
    Deny,
    /// It is accepted.
    Allow,
}

/// A whole number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntegerRange {
    /// The smallest that is accepted; at least −9007199254740991 (2^53 − 1 below zero).
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    pub minimum: i64,
    /// The largest that is accepted; at most 9007199254740991 (2^53 − 1).
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    pub maximum: i64,
}

/// A number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NumberRange {
    /// The smallest that is accepted: a decimal string such as "-0.5".
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$"))]
    pub minimum: String,
    /// The largest that is accepted: a decimal string such as "0.5".
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$"))]
    pub maximum: String,
}

/// Exactly one value; exactly one member is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Constant {
    /// A string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub string: Option<String>,
    /// A whole number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    pub integer: Option<i64>,
    /// A truth value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boolean: Option<bool>,
}
