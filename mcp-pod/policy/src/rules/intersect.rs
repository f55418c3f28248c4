//! Intersects two compiled rules: a scope's and the catalogue's.
//!
//! The intersection saves checking each value against both rules. A property test verifies that it admits a value if
//! and only if both rules do.

use super::{Arguments, Check, Property, Text, json};
use crate::model::JsonRule;

/// Most alternatives of two rules together that are compared with each other. Beyond that, both rules are checked.
const MAX_OPTIONS: usize = 16;

impl Check {
    /// Returns the rule that admits what both rules admit, or `None` if no value satisfies both.
    pub(crate) fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left.intersect(right).map(Self::Text),
            (Self::Integer { .. }, Self::Integer { .. } | Self::Number { .. })
            | (Self::Number { .. }, Self::Integer { .. }) => integers(self, other),
            (Self::Number { minimum, maximum }, Self::Number { minimum: low, maximum: high }) => {
                let (minimum, maximum) = (minimum.max(*low), maximum.min(*high));
                (minimum <= maximum).then_some(Self::Number { minimum, maximum })
            }
            (Self::Boolean(left), Self::Boolean(right)) => match (left, right) {
                (Some(left), Some(right)) if left != right => None,
                _ => Some(Self::Boolean(left.or(*right))),
            },
            (Self::Array { item, max_items }, Self::Array { item: other, max_items: other_max }) => {
                let item = item.as_ref().zip(other.as_ref()).and_then(|(left, right)| left.intersect(right));
                let max_items = if item.is_some() { (*max_items).min(*other_max) } else { 0 };
                Some(Self::Array { item: item.map(Box::new), max_items })
            }
            (
                Self::Object { properties, max_properties },
                Self::Object { properties: other, max_properties: other_max },
            ) => {
                let max_properties = max_properties.iter().chain(other_max).min().copied();
                Some(Self::Object { properties: properties.intersect(other)?, max_properties })
            }
            (Self::Object { properties, max_properties: own }, Self::Map { names, values, max_properties })
            | (Self::Map { names, values, max_properties }, Self::Object { properties, max_properties: own }) => {
                let properties = properties.within(names, values.as_deref())?;
                let most = own.map_or(*max_properties, |own| own.min(*max_properties));
                let required = properties.0.iter().filter(|property| property.required).count();
                let max_properties = (most < properties.0.len()).then_some(most);
                (required <= most).then_some(Self::Object { properties, max_properties })
            }
            (
                Self::Map { names, values, max_properties },
                Self::Map { names: other_names, values: other_values, max_properties: other_max },
            ) => {
                let both = values.as_ref().zip(other_values.as_ref()).and_then(|(left, right)| left.intersect(right));
                Some(match (names.intersect(other_names), both) {
                    (Some(names), Some(values)) => {
                        let max_properties = (*max_properties).min(*other_max);
                        Self::Map { names, values: Some(Box::new(values)), max_properties }
                    }
                    // The empty object remains.
                    _ => Self::Map { names: names.clone(), values: None, max_properties: 0 },
                })
            }
            (Self::Null, Self::Null) => Some(Self::Null),
            (Self::Json(left), Self::Json(right)) => Some(Self::Json(JsonRule {
                max_bytes: left.max_bytes.min(right.max_bytes),
                max_depth: left.max_depth.min(right.max_depth),
            })),
            (Self::Any(options), Self::Any(others)) => {
                let options = options.iter().flat_map(|option| others.iter().map(|other| option.intersect(other)));
                match any(options.flatten())? {
                    Self::Any(options) if options.len() > MAX_OPTIONS => {
                        Some(Self::All(vec![self.clone(), other.clone()]))
                    }
                    both => Some(both),
                }
            }
            (Self::Any(options), other) => any(options.iter().filter_map(|option| option.intersect(other))),
            (one, Self::Any(options)) => any(options.iter().filter_map(|option| one.intersect(option))),
            // Both are checked. The one that says more about the value comes first.
            (Self::All(checks), other) | (other, Self::All(checks)) => {
                Some(Self::All(checks.iter().chain([other]).cloned().collect()))
            }
            (narrow, wide @ Self::Json(_)) | (wide @ Self::Json(_), narrow) => {
                Some(Self::All(vec![narrow.clone(), wide.clone()]))
            }
            (
                Self::Text(_)
                | Self::Integer { .. }
                | Self::Number { .. }
                | Self::Boolean(_)
                | Self::Array { .. }
                | Self::Object { .. }
                | Self::Map { .. }
                | Self::Null,
                _,
            ) => None,
        }
    }
}

/// Returns what one of these admits; `None` if there is none.
fn any(checks: impl Iterator<Item = Check>) -> Option<Check> {
    let mut options: Vec<Check> = Vec::new();
    for check in checks {
        let inner = match check {
            Check::Any(inner) => inner,
            one => vec![one],
        };
        for option in inner {
            if !options.contains(&option) {
                options.push(option);
            }
        }
    }
    if options.len() > 1 { Some(Check::Any(options)) } else { options.pop() }
}

/// Returns the integers within the bounds of both rules.
fn integers(left: &Check, right: &Check) -> Option<Check> {
    let (low, high) = bounds(left)?;
    let (minimum, maximum) = bounds(right)?;
    let (minimum, maximum) = (minimum.max(low), maximum.min(high));
    (minimum <= maximum).then_some(Check::Integer { minimum, maximum })
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and no argument is larger than 2^53")]
fn bounds(check: &Check) -> Option<(i64, i64)> {
    match check {
        Check::Integer { minimum, maximum } => Some((*minimum, *maximum)),
        Check::Number { minimum, maximum } => Some((minimum.ceil() as i64, maximum.floor() as i64)),
        _ => None,
    }
}

impl Text {
    fn intersect(&self, other: &Self) -> Option<Self> {
        let path = match (&self.path, &other.path) {
            (Some(left), Some(right)) => Some(left.intersect(right)?),
            (path, None) | (None, path) => path.clone(),
        };
        let mut patterns = self.patterns.clone();
        patterns.extend(
            other.patterns.iter().filter(|new| self.patterns.iter().all(|old| old.source() != new.source())).cloned(),
        );
        let mut text = Self {
            one_of: None,
            max_length: self.max_length.into_iter().chain(other.max_length).min(),
            patterns,
            no_option: self.no_option || other.no_option,
            path,
        };
        let values = match (&self.one_of, &other.one_of) {
            (None, None) => return Some(text),
            (Some(left), Some(right)) => left.iter().filter(|value| right.contains(value)).cloned().collect(),
            (Some(values), None) | (None, Some(values)) => values.clone(),
        };
        let values: Vec<String> = values.into_iter().filter(|value| text.check(value).is_ok()).collect();
        if values.is_empty() {
            return None;
        }
        text.one_of = Some(values);
        Some(text)
    }
}

impl Arguments {
    /// Returns the arguments that both declare, in the order of `other`, the catalogue; or `None` if a required
    /// argument has no admitted value.
    pub(crate) fn intersect(&self, other: &Self) -> Option<Self> {
        if self.0.iter().any(|ours| ours.required && other.get(&ours.name).is_none()) {
            return None;
        }
        let mut both = Vec::with_capacity(self.0.len());
        for theirs in &other.0 {
            let ours = self.get(&theirs.name);
            let required = theirs.required || ours.is_some_and(|ours| ours.required);
            match ours.and_then(|ours| ours.check.intersect(&theirs.check)) {
                Some(check) => both.push(Property {
                    name: theirs.name.clone(),
                    required,
                    check,
                    shown: ours.and_then(|ours| ours.shown.clone()).or_else(|| theirs.shown.clone()),
                }),
                None if required => return None,
                None => {}
            }
        }
        Some(Self(both))
    }

    /// Returns those of the properties that a map with these names and values admits; `None` if it refuses a required one.
    fn within(&self, names: &Text, values: Option<&Check>) -> Option<Self> {
        let mut both = Vec::with_capacity(self.0.len());
        for property in &self.0 {
            let is_admitted = property.name != json::PROTOTYPE && names.check(&property.name).is_ok();
            match values.filter(|_| is_admitted).and_then(|values| property.check.intersect(values)) {
                Some(check) => both.push(Property { check, ..property.clone() }),
                None if property.required => return None,
                None => {}
            }
        }
        Some(Self(both))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Property> {
        self.0.iter().find(|property| property.name == name)
    }
}
