//! The two forms of a policy on the wire.

use crate::feature;

/// How a policy is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Each principal contains its grants, and each tool its arguments, as readers without the feature `shared` expect.
    Expanded,
    /// Equal grants and equal lists of arguments are in tables, each once.
    Shared,
}

impl Form {
    /// Returns the form that a reader with these features understands.
    pub fn for_reader<S: AsRef<str>>(features: &[S]) -> Self {
        if features.iter().any(|feature| feature.as_ref() == feature::SHARED) { Self::Shared } else { Self::Expanded }
    }
}
