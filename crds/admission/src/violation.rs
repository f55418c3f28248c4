//! What is wrong with an object, in the words of an API server.

use std::fmt;

/// One step of a path in an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field, or a key of a map.
    Field(String),
    /// A position in a list, from 0.
    Index(usize),
}

/// The place of a value in an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// Returns the path of the object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Returns the path of a field of the value at this path.
    #[must_use]
    pub fn child(&self, field: &str) -> Self {
        self.then(Segment::Field(field.to_owned()))
    }

    /// Returns the path of an item of the list at this path.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.then(Segment::Index(index))
    }

    fn then(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if position == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where it is.
    pub path: Path,
    /// What it is, and what to do, as an API server says it.
    pub text: String,
}

impl Violation {
    /// Returns a violation whose text does not need the path, or contains it.
    pub(crate) fn new(path: Path, text: impl Into<String>) -> Self {
        Self { path, text: text.into() }
    }

    /// Returns a violation whose text begins with the path.
    pub(crate) fn at(path: &Path, text: &str) -> Self {
        Self { path: path.clone(), text: format!("{path}: {text}") }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why an object is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name:?} is invalid: {}", list(.violations))]
pub struct Refusal {
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Everything that is wrong with it.
    pub violations: Vec<Violation>,
}

fn list(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    match &texts[..] {
        [one] => one.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}
