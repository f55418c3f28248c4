//! What an argument of a tool may be.

/// One argument: a property of the object that `tools/call` carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The name of the property.
    pub name: String,
    /// A call without it is refused.
    pub required: bool,
    /// What its value may be.
    pub rule: Rule,
}

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A path below a root.
    Path(PathRule),
    /// One of these strings.
    Enum(Vec<String>),
    /// A string.
    String(StringRule),
    /// A whole number, at most 2^53 − 1 either side of zero.
    Integer {
        /// The smallest that is accepted.
        minimum: i64,
        /// The largest that is accepted.
        maximum: i64,
    },
    /// A number.
    Number {
        /// The smallest that is accepted.
        minimum: Decimal,
        /// The largest that is accepted.
        maximum: Decimal,
    },
    /// `true` or `false`.
    Boolean,
    /// Exactly this.
    Const(Scalar),
    /// A list.
    Array(Box<ItemRule>),
    /// An object with these properties and no others.
    Object(Vec<Argument>),
}

/// A decimal number as its user wrote it; compared as a double.
///
/// Kept as text so that policies have a total equality and a byte-exact encoding.
pub type Decimal = String;

/// A path below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Absolute directories; the path must be one of them or lie below one, before and after links are followed.
    pub within: Vec<String>,
    /// Extensions without the dot; empty: any.
    pub extensions: Vec<String>,
    /// Accept names that begin with a dot.
    pub dotfiles: bool,
}

/// A string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringRule {
    /// The most Unicode scalar values that are accepted.
    pub max_length: u32,
    /// An anchored pattern in the subset that ECMA-262 and Rust's `regex` share; absent: any.
    pub pattern: Option<String>,
    /// Accept a value that begins with `-`, which a command line could read as an option.
    pub leading_dash: bool,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRule {
    /// What each item may be.
    pub item: Rule,
    /// The most items that are accepted.
    pub max_items: u32,
}

/// A constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
}
