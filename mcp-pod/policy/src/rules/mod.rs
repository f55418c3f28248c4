//! The rules of arguments, ready to be enforced: compiled once, intersected once, checked on every call.
//!
//! The custom resources and the operator validate rules by compiling them here, so that a rule which is accepted is
//! one that can be enforced.

mod admit;
mod compile;
mod intersect;
mod path;
mod pattern;

use crate::model::{Argument, Rule};

pub use admit::PathUse;
pub use compile::RuleError;
pub(crate) use path::Path;
pub use pattern::PatternError;
pub(crate) use pattern::{Pattern, escape};

/// Says whether the rule can be enforced.
pub fn validate(rule: &Rule) -> Result<(), RuleError> {
    Check::new(rule).map(drop)
}

/// Says whether these arguments can be enforced together.
pub fn validate_arguments(arguments: &[Argument]) -> Result<(), RuleError> {
    Arguments::new(arguments).map(drop)
}

/// What a value may be.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    Text(Text),
    Integer {
        minimum: i64,
        maximum: i64,
    },
    Number {
        minimum: f64,
        maximum: f64,
    },
    /// Absent: both.
    Boolean(Option<bool>),
    Array {
        /// Absent: there is nothing that an item may be.
        item: Option<Box<Check>>,
        max_items: usize,
    },
    Object(Arguments),
}

/// What a string may be: everything here at once.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// Only these; they satisfy all of the rest, which is then not checked again.
    pub(crate) one_of: Option<Vec<String>>,
    /// Unicode scalar values.
    pub(crate) max_length: Option<u32>,
    pub(crate) patterns: Vec<Pattern>,
    /// No leading dash.
    pub(crate) no_option: bool,
    pub(crate) path: Option<Path>,
}

/// What an object may hold: these and nothing else. In the order of the catalogue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments(pub(crate) Vec<Property>);

/// One property of an object.
#[derive(Clone, Debug)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) check: Check,
}

#[cfg(test)]
mod tests;
