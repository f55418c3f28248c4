//! Compiles a rule as a user wrote it into one that can be checked.

use super::{Arguments, Check, Path, Pattern, PatternError, Property, Text, forms};
use crate::json::MAX_INTEGER;
use crate::model::{Argument, Rule, Scalar, StringRule};

/// Greatest nesting of arrays and objects; the custom resources allow less.
const MAX_DEPTH: usize = 8;

/// Why a rule cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No value satisfies the rule.
    #[error("nothing satisfies the rule: {0}")]
    Empty(&'static str),
    /// Two arguments have the same name.
    #[error("the argument {0:?} is declared twice")]
    Duplicate(String),
    /// An argument name that JSON readers may read differently.
    #[error("an argument name must have 1 to {} characters and no control characters", forms::ARGUMENT_NAME.max_length)]
    Name,
    /// A root of a path rule is not an absolute path in normal form.
    #[error(
        "{0:?} is not an absolute path without a trailing slash and without `.`, `..`, empty, `~` or glob components"
    )]
    Root(String),
    /// An extension of a path rule is not a file name extension.
    #[error(
        "{0:?} is not an extension: use parts of letters, digits, `_`, `+` and `-` with a dot between them, without the \
         leading dot"
    )]
    Extension(String),
    /// A property has a name that changes what other objects inherit, in servers in JavaScript.
    #[error("an argument or property must not have the name `{}`", super::json::PROTOTYPE)]
    Prototype,
    /// A bound is not a decimal number.
    #[error("{0:?} is not a decimal number with at most 15 digits before and after the point")]
    Decimal(String),
    /// A pattern is not accepted.
    #[error("pattern {pattern:?} is refused")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// Why it is not accepted.
        source: PatternError,
    },
    /// An allowed value contains U+0000, which no string argument may contain, or is too long.
    #[error("a value must have at most {} characters and must not contain U+0000", forms::VALUE.max_length)]
    Value,
    /// An alternative is not a plain value, or is a path.
    #[error("an alternative must be an enumeration, string, number, boolean or constant")]
    Option,
    /// Arrays and objects are nested too deeply.
    #[error("the rule is nested too deeply")]
    Depth,
}

impl Check {
    pub(crate) fn new(rule: &Rule) -> Result<Self, RuleError> {
        compile(rule, MAX_DEPTH)
    }
}

impl Arguments {
    pub(crate) fn new(arguments: &[Argument]) -> Result<Self, RuleError> {
        properties(arguments, MAX_DEPTH)
    }
}

impl Text {
    /// Admits any string.
    pub(super) const fn any() -> Self {
        Self { one_of: None, max_length: None, patterns: Vec::new(), no_option: false, path: None }
    }
}

fn compile(rule: &Rule, depth: usize) -> Result<Check, RuleError> {
    let inner = depth.checked_sub(1).ok_or(RuleError::Depth)?;
    Ok(match rule {
        Rule::Path(path) => Check::Text(Text { path: Some(Path::new(path)?), ..Text::any() }),
        Rule::Enum(values) if values.is_empty() => return Err(RuleError::Empty("an enumeration without values")),
        Rule::Enum(values) => one_of(values)?,
        Rule::String(rule) => Check::Text(string(rule)?),
        Rule::Integer { minimum, maximum } if minimum > maximum => {
            return Err(RuleError::Empty("the minimum is above the maximum"));
        }
        Rule::Integer { minimum, maximum } => Check::Integer { minimum: *minimum, maximum: *maximum },
        Rule::Number { minimum, maximum } => {
            let (minimum, maximum) = (decimal(minimum)?, decimal(maximum)?);
            if minimum > maximum {
                return Err(RuleError::Empty("the minimum is above the maximum"));
            }
            Check::Number { minimum, maximum }
        }
        Rule::Boolean => Check::Boolean(None),
        Rule::Const(Scalar::Boolean(truth)) => Check::Boolean(Some(*truth)),
        Rule::Const(Scalar::Integer(number)) if !(-MAX_INTEGER..=MAX_INTEGER).contains(number) => {
            return Err(RuleError::Empty("the constant is further than 2^53 - 1 from zero"));
        }
        Rule::Const(Scalar::Integer(number)) => Check::Integer { minimum: *number, maximum: *number },
        Rule::Const(Scalar::String(text)) => one_of(std::slice::from_ref(text))?,
        Rule::Array(items) => Check::Array {
            item: Some(Box::new(compile(&items.item, inner)?)),
            max_items: usize::try_from(items.max_items).unwrap_or(usize::MAX),
        },
        Rule::Object(arguments) => Check::Object { properties: properties(arguments, inner)?, max_properties: None },
        Rule::Map(map) => Check::Map {
            names: string(&map.names)?,
            values: Some(Box::new(compile(&map.values, inner)?)),
            max_properties: usize::try_from(map.max_properties).unwrap_or(usize::MAX),
        },
        Rule::OneOf(options) if options.is_empty() => return Err(RuleError::Empty("no alternatives")),
        Rule::OneOf(options) => {
            if !options.iter().all(is_plain) {
                return Err(RuleError::Option);
            }
            Check::Any(options.iter().map(|option| compile(option, inner)).collect::<Result<_, _>>()?)
        }
        Rule::Nullable(rule) => match compile(rule, depth)? {
            Check::Any(mut options) => {
                options.push(Check::Null);
                Check::Any(options)
            }
            check => Check::Any(vec![check, Check::Null]),
        },
        Rule::Json(bounds) => Check::Json(*bounds),
    })
}

/// Returns whether a rule may be an alternative. A path may not: another alternative could admit it as an ordinary text,
/// and then it would not be resolved.
const fn is_plain(rule: &Rule) -> bool {
    match rule {
        Rule::Enum(_)
        | Rule::String(_)
        | Rule::Integer { .. }
        | Rule::Number { .. }
        | Rule::Boolean
        | Rule::Const(_) => true,
        Rule::Path(_)
        | Rule::Array(_)
        | Rule::Object(_)
        | Rule::Map(_)
        | Rule::OneOf(_)
        | Rule::Nullable(_)
        | Rule::Json(_) => false,
    }
}

fn string(rule: &StringRule) -> Result<Text, RuleError> {
    Ok(Text {
        max_length: Some(rule.max_length),
        patterns: rule.pattern.iter().map(|source| pattern(source)).collect::<Result<_, _>>()?,
        no_option: !rule.leading_dash,
        ..Text::any()
    })
}

fn one_of(values: &[String]) -> Result<Check, RuleError> {
    if !values.iter().all(|value| forms::VALUE.admits(value)) {
        return Err(RuleError::Value);
    }
    Ok(Check::Text(Text { one_of: Some(values.to_vec()), ..Text::any() }))
}

fn properties(arguments: &[Argument], depth: usize) -> Result<Arguments, RuleError> {
    let mut properties: Vec<Property> = Vec::with_capacity(arguments.len());
    for Argument { name, required, rule, shown } in arguments {
        if !forms::ARGUMENT_NAME.admits(name) {
            return Err(RuleError::Name);
        }
        if name == super::json::PROTOTYPE {
            return Err(RuleError::Prototype);
        }
        if properties.iter().any(|property| property.name == *name) {
            return Err(RuleError::Duplicate(name.clone()));
        }
        properties.push(Property {
            name: name.clone(),
            required: *required,
            check: compile(rule, depth)?,
            shown: shown.clone(),
        });
    }
    Ok(Arguments(properties))
}

fn pattern(source: &str) -> Result<Pattern, RuleError> {
    Pattern::new(source).map_err(|error| RuleError::Pattern { pattern: source.to_owned(), source: error })
}

fn decimal(text: &str) -> Result<f64, RuleError> {
    let error = || RuleError::Decimal(text.to_owned());
    if !forms::DECIMAL.admits(text) {
        return Err(error());
    }
    text.parse().map_err(|_| error())
}
