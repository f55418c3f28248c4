//! Checks values against compiled rules.

use std::fmt::Debug;

use super::json::Excess;
use super::path::join;
use super::{Arguments, Check, Text, json};
use crate::denial::{Denial, escape_name};
use crate::json::{Members, Value};
use crate::model::JsonRule;
use crate::reason::Reason;

/// A path in the arguments of an admitted call, and the directories below which it must resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathArgument<'p, 'v> {
    /// The path as the caller sent it.
    pub value: &'v str,
    /// Absolute directories without a trailing slash, except for `/` itself.
    pub within: &'p [String],
}

/// Why a value is not admitted; built only for refusals.
#[derive(Debug)]
pub(crate) struct Violation {
    reason: Reason,
    /// A predicate about the argument, such as `must be …`.
    limit: String,
    /// Location of the value, innermost part first: a property by its name, an item as `[]`.
    location: Vec<String>,
}

/// Result of a check. The error is boxed to keep the result of an admitted call small.
type CheckResult = Result<(), Box<Violation>>;

impl Violation {
    #[expect(clippy::unnecessary_box_returns, reason = "every caller wants the box")]
    fn new(reason: Reason, limit: impl Into<String>) -> Box<Self> {
        Box::new(Self { reason, limit: limit.into(), location: Vec::new() })
    }

    /// Converts the violation to the denial that the caller receives.
    pub(crate) fn into_denial(self) -> Denial {
        let Self { reason, limit, mut location } = self;
        location.reverse();
        let mut name = String::new();
        for part in &location {
            if !name.is_empty() && part != "[]" && part != "{}" {
                name.push('.');
            }
            name.push_str(part);
        }
        if name.is_empty() {
            return Denial::new(reason).with_limit(limit);
        }
        let limit = format!("argument `{name}` {limit}");
        Denial { argument: Some(name), ..Denial::new(reason).with_limit(limit) }
    }
}

impl Check {
    /// Checks the value and collects the paths in it.
    pub(crate) fn admit<'p, 'v>(&'p self, value: &'v Value<'_>, paths: &mut Vec<PathArgument<'p, 'v>>) -> CheckResult {
        match (self, value) {
            (Self::Text(text), Value::String(value)) => {
                text.check(value).map_err(|(reason, limit)| Violation::new(reason, limit))?;
                if let Some(path) = &text.path {
                    paths.push(PathArgument { value, within: &path.within });
                }
                Ok(())
            }
            (Self::Integer { minimum, maximum }, Value::Integer(value)) => {
                if (minimum..=maximum).contains(&value) {
                    return Ok(());
                }
                Err(Violation::new(Reason::ArgumentOutOfRange, between(minimum, maximum)))
            }
            (Self::Number { minimum, maximum }, Value::Integer(_) | Value::Number(_)) => {
                if (minimum..=maximum).contains(&&double(value)) {
                    return Ok(());
                }
                Err(Violation::new(Reason::ArgumentOutOfRange, between(minimum, maximum)))
            }
            (Self::Boolean(wanted), Value::Bool(value)) => match wanted {
                Some(wanted) if wanted != value => {
                    Err(Violation::new(Reason::ArgumentNotAllowed, format!("must be {wanted}")))
                }
                _ => Ok(()),
            },
            (Self::Array { item, max_items }, Value::Array(values)) => {
                if values.len() > *max_items {
                    let limit = format!("must contain at most {max_items} items");
                    return Err(Violation::new(Reason::ArgumentOutOfRange, limit));
                }
                item.iter().try_for_each(|item| {
                    values.iter().try_for_each(|value| {
                        item.admit(value, paths).map_err(|mut violation| {
                            violation.location.push("[]".to_owned());
                            violation
                        })
                    })
                })
            }
            (Self::Object { properties, max_properties }, Value::Object(members)) => {
                max_properties.map_or(Ok(()), |max| count(members, max))?;
                properties.admit(members, paths)
            }
            (Self::Map { names, values, max_properties }, Value::Object(members)) => {
                admit_map(names, values.as_deref(), *max_properties, members, paths)
            }
            (Self::Null, Value::Null) => Ok(()),
            (Self::Json(bounds), value) => {
                json::check(value, *bounds).map_err(|excess| json_violation(excess, *bounds))
            }
            (Self::All(checks), value) => checks.iter().try_for_each(|check| check.admit(value, paths)),
            (Self::Any(checks), value) => self.admit_any(checks, value, paths),
            _ => Err(Violation::new(Reason::ArgumentType, self.must_be_of_type())),
        }
    }

    /// Checks that one of these checks admits the value. If none does, the error is that of the first one that is about the
    /// type of the value. It is built only then: there can be many alternatives, and a text for each takes far longer.
    fn admit_any<'p, 'v>(
        &'p self,
        checks: &'p [Self],
        value: &'v Value<'_>,
        paths: &mut Vec<PathArgument<'p, 'v>>,
    ) -> CheckResult {
        let known = paths.len();
        let mut closest = None;
        for check in checks.iter().filter(|check| check.is_about(value)) {
            match check.admits_plain(value) {
                Some(true) => return Ok(()),
                Some(false) => {}
                None if check.admit(value, paths).is_ok() => return Ok(()),
                None => paths.truncate(known),
            }
            closest = closest.or(Some(check));
        }
        let violation = closest.and_then(|check| check.admit(value, &mut Vec::new()).err());
        Err(violation.unwrap_or_else(|| Violation::new(Reason::ArgumentType, self.must_be_of_type())))
    }

    /// Returns whether the rule is about values of this type.
    fn is_about(&self, value: &Value<'_>) -> bool {
        match self {
            Self::Text(_) => matches!(value, Value::String(_)),
            Self::Integer { .. } => matches!(value, Value::Integer(_)),
            Self::Number { .. } => matches!(value, Value::Integer(_) | Value::Number(_)),
            Self::Boolean(_) => matches!(value, Value::Bool(_)),
            Self::Array { .. } => matches!(value, Value::Array(_)),
            Self::Object { .. } | Self::Map { .. } => matches!(value, Value::Object(_)),
            Self::Null => value.is_null(),
            Self::Json(_) => true,
            Self::Any(checks) => checks.iter().any(|check| check.is_about(value)),
            Self::All(checks) => checks.iter().all(|check| check.is_about(value)),
        }
    }

    /// Returns whether a rule for plain values that are no paths admits the value; `None` for other rules.
    fn admits_plain(&self, value: &Value<'_>) -> Option<bool> {
        match (self, value) {
            (Self::Text(text), Value::String(value)) if text.path.is_none() => Some(text.fault(value).is_none()),
            (Self::Integer { minimum, maximum }, Value::Integer(value)) => Some((minimum..=maximum).contains(&value)),
            (Self::Number { minimum, maximum }, Value::Integer(_) | Value::Number(_)) => {
                Some((minimum..=maximum).contains(&&double(value)))
            }
            _ => None,
        }
    }

    /// Returns whether `null` is admitted.
    fn admits_null(&self) -> bool {
        self.admit(&Value::Null, &mut Vec::new()).is_ok()
    }

    fn must_be_of_type(&self) -> String {
        let mut names = self.type_names();
        names.dedup();
        format!("must be {}", names.join(" or "))
    }

    fn type_names(&self) -> Vec<&'static str> {
        match self {
            Self::Any(checks) => checks.iter().flat_map(Self::type_names).collect(),
            Self::All(checks) => checks.first().map(Self::type_names).unwrap_or_default(),
            one => vec![one.type_name()],
        }
    }

    fn leave_out_nulls(&self, value: &mut Value<'_>) {
        match (self, value) {
            (Self::Map { values: Some(check), .. }, Value::Object(members)) => {
                for (_, value) in members {
                    check.leave_out_nulls(value);
                }
            }
            // At most one of them looks into the value: alternatives are plain values, besides the one rule of a nullable
            // value, and of rules that all apply, the others only measure it.
            (Self::Any(checks) | Self::All(checks), value) => {
                for check in checks {
                    check.leave_out_nulls(value);
                }
            }
            (Self::Object { properties, .. }, Value::Object(members)) => properties.leave_out_nulls(members),
            (Self::Array { item: Some(item), .. }, Value::Array(values)) => {
                for value in values {
                    item.leave_out_nulls(value);
                }
            }
            _ => {}
        }
    }

    const fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer { .. } => "a whole number",
            Self::Number { .. } => "a number",
            Self::Boolean(_) => "true or false",
            Self::Array { .. } => "an array",
            Self::Object { .. } | Self::Map { .. } => "an object",
            Self::Null => "null",
            Self::Json(_) | Self::Any(_) | Self::All(_) => "of another type",
        }
    }
}

/// Checks the number of properties of an object.
fn count(members: &Members<'_>, max_properties: usize) -> CheckResult {
    if members.len() > max_properties {
        let limit = format!("must have at most {max_properties} properties");
        return Err(Violation::new(Reason::ArgumentOutOfRange, limit));
    }
    Ok(())
}

/// Checks an object whose properties have no fixed names. A refusal does not contain the names: the caller chose them.
fn admit_map<'p, 'v>(
    names: &Text,
    values: Option<&'p Check>,
    max_properties: usize,
    members: &'v Members<'_>,
    paths: &mut Vec<PathArgument<'p, 'v>>,
) -> CheckResult {
    count(members, max_properties)?;
    members.iter().try_for_each(|(name, value)| {
        if name == json::PROTOTYPE {
            return Err(json_violation(Excess::Prototype, JsonRule { max_bytes: 0, max_depth: 0 }));
        }
        names.check(name).map_err(|(reason, limit)| {
            Violation::new(reason, format!("has a property whose name is refused: a name {limit}"))
        })?;
        values.map_or(Ok(()), |values| {
            values.admit(value, paths).map_err(|mut violation| {
                violation.location.push("{}".to_owned());
                violation
            })
        })
    })
}

#[expect(clippy::unnecessary_box_returns, reason = "every caller wants the box")]
fn json_violation(excess: Excess, JsonRule { max_bytes, max_depth }: JsonRule) -> Box<Violation> {
    match excess {
        Excess::Bounds => Violation::new(
            Reason::ArgumentOutOfRange,
            format!("must have at most {max_bytes} bytes of JSON and at most {max_depth} levels of arrays and objects"),
        ),
        Excess::Nul => Violation::new(Reason::ArgumentPattern, "must not contain U+0000"),
        Excess::Prototype => Violation::new(
            Reason::ArgumentPattern,
            format!("must not contain an object with a property of the name `{}`", json::PROTOTYPE),
        ),
    }
}

impl Arguments {
    /// Checks the members and collects the paths in them. Undeclared members and missing required ones are refused.
    pub(crate) fn admit<'p, 'v>(
        &'p self,
        members: &'v Members<'_>,
        paths: &mut Vec<PathArgument<'p, 'v>>,
    ) -> CheckResult {
        if let Some((name, _)) = members.iter().find(|(name, _)| self.get(name).is_none()) {
            return Err(Violation::new(
                Reason::ArgumentUndeclared,
                format!("there is no argument `{}` for this caller", escape_name(name)),
            ));
        }
        for property in &self.0 {
            let at = |mut violation: Box<Violation>| {
                violation.location.push(property.name.clone());
                violation
            };
            match members.iter().find(|(name, _)| *name == property.name) {
                Some((_, value)) => property.check.admit(value, paths).map_err(at)?,
                None if property.required => return Err(at(Violation::new(Reason::ArgumentMissing, "is required"))),
                None => {}
            }
        }
        Ok(())
    }

    /// Removes the members that are `null` and optional here: frameworks send `null` for each argument that they leave out.
    /// One whose rule admits `null` stays, and so do all others, which are refused.
    pub(crate) fn leave_out_nulls(&self, members: &mut Members<'_>) {
        members.retain_mut(|(name, value)| match self.get(name) {
            Some(property) if value.is_null() => property.required || property.check.admits_null(),
            Some(property) => {
                property.check.leave_out_nulls(value);
                true
            }
            None => true,
        });
    }

    /// Returns how far the members are from being admitted: the number of wrong arguments.
    ///
    /// If there are more members than declared arguments, the result is the surplus, which is certainly undeclared.
    /// Otherwise a caller could send tens of thousands of members to be compared with every grant.
    pub(crate) fn distance(&self, members: &Members<'_>) -> usize {
        if let Some(surplus) = members.len().checked_sub(self.0.len()).filter(|surplus| *surplus > 0) {
            return surplus;
        }
        let undeclared = members.iter().filter(|(name, _)| self.get(name).is_none()).count();
        let wrong = self.0.iter().filter(|property| match members.iter().find(|(name, _)| *name == property.name) {
            Some((_, value)) => property.check.admit(value, &mut Vec::new()).is_err(),
            None => property.required,
        });
        undeclared + wrong.count()
    }
}

/// What is wrong with a string. The texts about it are built only for refusals.
enum Fault<'t> {
    /// It is none of these.
    Value(&'t [String]),
    /// It has more characters.
    Length(u32),
    /// It begins with a dash.
    Dash,
    /// It contains U+0000.
    Nul,
    /// It does not match this pattern.
    Pattern(&'t str),
    /// It is not an accepted path.
    Path(Reason, String),
}

impl Fault<'_> {
    /// Returns the reason and a predicate such as `must be …`.
    fn describe(self) -> (Reason, String) {
        match self {
            Self::Value(values) => (Reason::ArgumentNotAllowed, format!("must be one of {}", join(values))),
            Self::Length(max) => (Reason::ArgumentOutOfRange, format!("must be at most {max} characters long")),
            Self::Dash => (Reason::ArgumentPattern, "must not begin with a dash".to_owned()),
            Self::Nul => (Reason::ArgumentPattern, "must not contain U+0000".to_owned()),
            Self::Pattern(pattern) => (Reason::ArgumentPattern, format!("must match the pattern `{pattern}`")),
            Self::Path(reason, limit) => (reason, limit),
        }
    }
}

impl Text {
    /// Checks the string. The error is the reason and a predicate such as `must be …`.
    pub(super) fn check(&self, value: &str) -> Result<(), (Reason, String)> {
        self.fault(value).map_or(Ok(()), |fault| Err(fault.describe()))
    }

    fn fault(&self, value: &str) -> Option<Fault<'_>> {
        if let Some(values) = &self.one_of {
            return values.iter().all(|one| one != value).then_some(Fault::Value(values));
        }
        if let Some(max) = self.max_length {
            // A string has at least as many bytes as scalar values.
            let fits = usize::try_from(max).is_ok_and(|max| value.len() <= max || value.chars().count() <= max);
            if !fits {
                return Some(Fault::Length(max));
            }
        }
        if self.no_option && value.starts_with('-') {
            return Some(Fault::Dash);
        }
        if memchr::memchr(0, value.as_bytes()).is_some() {
            return Some(Fault::Nul);
        }
        if let Some(pattern) = self.patterns.iter().find(|pattern| !pattern.matches(value)) {
            return Some(Fault::Pattern(pattern.source()));
        }
        let (reason, limit) = self.path.as_ref()?.check(value).err()?;
        Some(Fault::Path(reason, limit))
    }
}

/// Returns the number as a double. Integers are within ±(2^53 − 1), where every integer is a double.
#[expect(clippy::cast_precision_loss, reason = "within ±(2^53 - 1)")]
const fn double(value: &Value<'_>) -> f64 {
    match value {
        Value::Integer(number) => *number as f64,
        Value::Number(number) => *number,
        _ => f64::NAN,
    }
}

/// Describes a range, with numbers as Rust literals: short for doubles of any size.
fn between<T: Debug + PartialEq>(minimum: &T, maximum: &T) -> String {
    if minimum == maximum {
        return format!("must be {minimum:?}");
    }
    format!("must be between {minimum:?} and {maximum:?}")
}
