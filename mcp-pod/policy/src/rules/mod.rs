//! Argument rules, ready to be enforced: compiled and intersected once, then checked on every call.
//!
//! The custom resources and the operator validate a rule by compiling it here, so every accepted rule can be enforced.

mod admit;
mod compile;
pub mod forms;
mod intersect;
mod json;
mod path;
mod pattern;

use std::sync::Arc;

use crate::model::{Argument, JsonRule, Rule, Shown};

pub use admit::PathArgument;
pub use compile::RuleError;
pub(crate) use path::Path;
pub use pattern::PatternError;
pub(crate) use pattern::{Pattern, escape};

/// Checks that a rule can be enforced.
pub fn validate(rule: &Rule) -> Result<(), RuleError> {
    Check::new(rule)?.validate_patterns()
}

/// Checks that these arguments can be enforced together.
pub fn validate_arguments(arguments: &[Argument]) -> Result<(), RuleError> {
    Arguments::new(arguments)?.validate_patterns()
}

impl Check {
    /// Checks that the expressions of all patterns can be built. Otherwise that happens when they are first needed.
    fn validate_patterns(&self) -> Result<(), RuleError> {
        match self {
            Self::Text(text) => text.validate_patterns(),
            Self::Array { item, .. } => item.as_ref().map_or(Ok(()), |item| item.validate_patterns()),
            Self::Object { properties, .. } => properties.validate_patterns(),
            Self::Map { names, values, .. } => {
                names.validate_patterns()?;
                values.as_ref().map_or(Ok(()), |values| values.validate_patterns())
            }
            Self::Any(checks) | Self::All(checks) => checks.iter().try_for_each(Self::validate_patterns),
            Self::Integer { .. } | Self::Number { .. } | Self::Boolean(_) | Self::Null | Self::Json(_) => Ok(()),
        }
    }
}

impl Text {
    fn validate_patterns(&self) -> Result<(), RuleError> {
        self.patterns.iter().try_for_each(|pattern| {
            let error = |source| RuleError::Pattern { pattern: pattern.source().to_owned(), source };
            pattern.validate().map_err(error)
        })
    }
}

impl Arguments {
    fn validate_patterns(&self) -> Result<(), RuleError> {
        self.0.iter().try_for_each(|property| property.check.validate_patterns())
    }
}

/// A compiled rule: the values that an argument may have.
#[derive(Clone, Debug, PartialEq)]
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
    /// `None` admits both values.
    Boolean(Option<bool>),
    Array {
        /// `None` admits no item.
        item: Option<Box<Check>>,
        max_items: usize,
    },
    Object {
        properties: Arguments,
        /// Set if that is fewer than there are properties.
        max_properties: Option<usize>,
    },
    Map {
        /// Each name.
        names: Text,
        /// Each value. `None` admits no property.
        values: Option<Box<Check>>,
        max_properties: usize,
    },
    /// `null`.
    Null,
    /// Any JSON within these bounds.
    Json(JsonRule),
    /// What one of these admits.
    Any(Vec<Check>),
    /// What all of these admit; the first one is shown to agents.
    All(Vec<Check>),
}

/// The conditions on a string; all of them apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Only these values are admitted. They already satisfy the other conditions, which are then not checked again.
    pub(crate) one_of: Option<Vec<String>>,
    /// In Unicode scalar values.
    pub(crate) max_length: Option<u32>,
    pub(crate) patterns: Vec<Pattern>,
    /// Rejects a leading dash.
    pub(crate) no_option: bool,
    pub(crate) path: Option<Path>,
}

/// The properties that an object may have, and no others, in the order of the catalogue.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Arguments(pub(crate) Vec<Property>);

/// A property of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) check: Check,
    /// What agents read about it.
    pub(crate) shown: Option<Arc<Shown>>,
}

#[cfg(test)]
mod tests;
