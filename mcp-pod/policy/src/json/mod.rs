//! JSON as the data plane reads and writes it: one parser that no other parser can disagree with.
//!
//! What two parsers could read in two ways is refused: duplicate keys (also through escapes), lone surrogates,
//! numbers that a double cannot hold, a byte order mark, anything behind the value. What is forwarded is written anew
//! by [`write`] from the tree that was checked, so its next reader sees what the checks saw.

mod error;
mod marked;
mod number;
mod parse;
mod string;
mod write;

use std::borrow::Cow;

pub use error::{ParseError, Problem};
pub use parse::parse;
pub use write::{write, write_str};

/// The largest whole number either side of zero that every JSON parser reads alike: 2^53 − 1 (RFC 8259, 6).
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// One JSON value, borrowing from its text where no escape forbids it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction within ±[`MAX_INTEGER`], however it was written (`100`, `1e2`, `100.0`).
    Integer(i64),
    /// Any other number, never infinite; negative zero is one.
    Number(f64),
    /// A string.
    String(Cow<'a, str>),
    /// A list.
    Array(Vec<Value<'a>>),
    /// An object, in the order of its text, without duplicate keys.
    Object(Members<'a>),
}

/// The members of an object, in order.
pub type Members<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

impl<'a> Value<'a> {
    /// The member of that name, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The whole number, if it is one.
    pub const fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// The truth value, if it is one.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// The items, if it is a list.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The members, if it is an object.
    pub const fn as_object(&self) -> Option<&Members<'a>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// Whether it is `null`.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// What the parser accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects within one another.
    pub depth: usize,
    /// Values in all, which bounds the memory of the tree.
    pub nodes: usize,
    /// What happens to numbers that a double cannot hold.
    pub numbers: Numbers,
    /// What becomes of strings that are values; names of members are decoded always.
    pub strings: Strings,
}

impl Limits {
    /// For what callers send.
    pub const REQUEST: Self = Self { depth: 32, nodes: 32_768, numbers: Numbers::Exact, strings: Strings::Decoded };
    /// For what servers answer: larger, and a number of 64 bits in a schema is no attack.
    pub const RESULT: Self = Self { depth: 64, nodes: 262_144, numbers: Numbers::Rounded, strings: Strings::Decoded };
    /// For what servers answer and is passed on as it is: checked alike, decoded only as far as it is looked at.
    pub const PASSED: Self = Self { strings: Strings::Checked, ..Self::RESULT };
}

/// What happens to numbers that a double cannot hold; an overflow is refused always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// They are refused.
    Exact,
    /// They become the nearest double.
    Rounded,
}

/// What becomes of strings that are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// Their escapes are resolved.
    Decoded,
    /// Their escapes are checked and left as they are: good for comparing with a text that needs none.
    Checked,
}

#[cfg(test)]
mod tests;
