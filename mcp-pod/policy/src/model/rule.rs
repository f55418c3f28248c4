//! The rules for the arguments of a tool.

use std::sync::Arc;

use super::Shown;

/// An argument of a tool: a property of the `arguments` object in `tools/call`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Argument {
    /// Name of the property.
    pub name: String,
    /// Whether a call without the argument is refused.
    pub required: bool,
    /// Rule for the value.
    pub rule: Rule,
    /// What agents read about it; `None` leaves that to the server.
    pub shown: Option<Arc<Shown>>,
}

/// A rule: the values that an argument may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A path below a root.
    Path(PathRule),
    /// One of these strings.
    Enum(Vec<String>),
    /// A string.
    String(StringRule),
    /// An integer within ±(2^53 − 1).
    Integer {
        /// Smallest accepted value.
        minimum: i64,
        /// Largest accepted value.
        maximum: i64,
    },
    /// A number.
    Number {
        /// Smallest accepted value.
        minimum: Decimal,
        /// Largest accepted value.
        maximum: Decimal,
    },
    /// `true` or `false`.
    Boolean,
    /// Exactly this value.
    Const(Scalar),
    /// An array.
    Array(Box<ArrayRule>),
    /// An object with these properties and no others.
    Object(Vec<Argument>),
    /// An object whose properties have no fixed names.
    Map(Box<MapRule>),
    /// What one of these rules admits. They are about plain values other than paths.
    OneOf(Vec<Rule>),
    /// `null`, or what the rule admits.
    Nullable(Box<Rule>),
    /// Any JSON within these bounds.
    Json(JsonRule),
}

impl Rule {
    /// Returns whether a value, or one in it, may be any JSON.
    pub fn is_wide(&self) -> bool {
        match self {
            Self::Json(_) => true,
            Self::Array(list) => list.item.is_wide(),
            Self::Object(properties) => properties.iter().any(|property| property.rule.is_wide()),
            Self::Map(map) => map.values.is_wide(),
            Self::Nullable(rule) => rule.is_wide(),
            Self::OneOf(options) => options.iter().any(Self::is_wide),
            Self::Path(_)
            | Self::Enum(_)
            | Self::String(_)
            | Self::Integer { .. }
            | Self::Number { .. }
            | Self::Boolean
            | Self::Const(_) => false,
        }
    }
}

/// A decimal number as the user wrote it; compared as a double.
///
/// Stored as text so that policies have total equality and a byte-exact encoding.
pub type Decimal = String;

/// Rule for a path below a root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathRule {
    /// Absolute directories. The path must be one of them or below one, both as written and with links resolved.
    pub within: Vec<String>,
    /// Accepted extensions without the leading dot; if empty, any.
    pub extensions: Vec<String>,
    /// Whether names that begin with a dot are accepted.
    pub dotfiles: bool,
}

/// Rule for a string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StringRule {
    /// Maximum length in Unicode scalar values.
    pub max_length: u32,
    /// Anchored pattern in the subset that ECMA-262 and Rust's `regex` share.
    pub pattern: Option<String>,
    /// Whether a value may begin with `-`, which a command line could read as an option.
    pub leading_dash: bool,
}

/// Rule for an array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArrayRule {
    /// Rule for each item.
    pub item: Rule,
    /// Maximum number of items.
    pub max_items: u32,
}

/// Rule for an object whose properties have no fixed names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MapRule {
    /// Rule for each name.
    pub names: StringRule,
    /// Rule for each value.
    pub values: Rule,
    /// Maximum number of properties.
    pub max_properties: u32,
}

/// Bounds of a value that may be any JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JsonRule {
    /// Maximum number of bytes in compact form.
    pub max_bytes: u32,
    /// Maximum nesting of arrays and objects; 0 for plain values only.
    pub max_depth: u32,
}

/// A constant value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// A string.
    String(String),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
}
