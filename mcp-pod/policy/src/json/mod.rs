//! JSON as the data plane reads and writes it. Start at [`parse`].
//!
//! The parser rejects everything that two parsers could read differently: duplicate keys (also if spelled with
//! escapes), lone surrogates, numbers that a double cannot hold, a byte order mark, text after the value. Forwarded
//! messages are written by [`write`] from the parsed tree that was checked, so that the next reader sees what the
//! checks saw.

mod canonical;
mod error;
mod number;
pub mod outline;
mod parse;
mod special;
mod string;
mod write;

use std::borrow::Cow;

pub use canonical::write_canonical;
pub use error::{ParseError, Problem};
pub use parse::{parse, parse_metered};
pub use write::{write, write_str};

/// Largest absolute value of an integer that every JSON parser reads exactly: 2^53 − 1 (RFC 8259, 6).
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// A JSON value. Strings without escapes borrow from the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction within ±[`MAX_INTEGER`], however it was written (`100`, `1e2`, `100.0`).
    Integer(i64),
    /// Any other finite number, including negative zero.
    Number(f64),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object without duplicate keys, in the order of the text.
    Object(Members<'a>),
}

/// The members of an object, in order.
pub type Members<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

impl<'a> Value<'a> {
    /// Returns the member with this name, if the value is an object and has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Returns the string, if the value is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// Returns the integer, if the value is one.
    pub const fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// Returns the boolean, if the value is one.
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// Returns the items, if the value is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// Returns the members, if the value is an object.
    pub const fn as_object(&self) -> Option<&Members<'a>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// Returns whether the value is `null`.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Returns whether the value is `null` or contains one.
    pub fn has_null(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Array(items) => items.iter().any(Self::has_null),
            Self::Object(members) => members.iter().any(|(_, value)| value.has_null()),
            Self::Bool(_) | Self::Integer(_) | Self::Number(_) | Self::String(_) => false,
        }
    }
}

/// Limits and options of the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Greatest nesting of arrays and objects.
    pub depth: usize,
    /// Greatest number of values, which bounds the memory of the tree.
    pub nodes: usize,
    /// How numbers that a double cannot hold are treated.
    pub numbers: Numbers,
    /// How strings that are values are treated; names of members are always decoded.
    pub strings: Strings,
}

impl Limits {
    /// Limits for requests of callers.
    pub const REQUEST: Self = Self { depth: 32, nodes: 32_768, numbers: Numbers::Exact, strings: Strings::Decoded };
    /// Limits for answers of servers: larger, and with rounding, because a 64-bit number in a schema is not an attack.
    pub const RESULT: Self = Self { depth: 64, nodes: 262_144, numbers: Numbers::Rounded, strings: Strings::Decoded };
    /// Limits for answers of servers that are passed on unchanged: the same checks, but escapes are not decoded.
    pub const PASS_THROUGH: Self = Self { strings: Strings::Checked, ..Self::RESULT };
}

/// How numbers that a double cannot hold are treated; an overflow is always rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// They are rejected.
    Exact,
    /// They are rounded to the nearest double.
    Rounded,
}

/// How strings that are values are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// Escapes are decoded.
    Decoded,
    /// Escapes are checked and left as they are; enough to compare the string with one that needs no escapes.
    Checked,
}

#[cfg(test)]
mod tests;
