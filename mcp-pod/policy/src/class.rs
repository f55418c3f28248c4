//! The class of a tool: the kind of effect that its owner declares.

use serde::{Deserialize, Serialize};

/// The class of a tool, declared by the owner of the server and never taken from the server's own hints.
///
/// Scopes and budgets select tools by class, and the maximum age of the policy depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Class {
    /// Changes nothing.
    Read,
    /// Changes or creates something.
    Write,
    /// Destroys something that cannot be restored.
    Destructive,
}

impl Class {
    /// Every class, from least to most harmful.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Destructive];

    /// Returns the name as users write it and audit lines show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Destructive => "Destructive",
        }
    }
}
