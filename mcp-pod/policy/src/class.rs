//! What a tool does to the world, as its owner declares it.

use serde::{Deserialize, Serialize};

/// The class of a tool, set by the owner of the server and never by the server's own hints.
///
/// Scopes select classes; staleness and budgets depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Class {
    /// Changes nothing.
    Read,
    /// Changes or creates something.
    Write,
    /// Destroys something that cannot be had back.
    Destructive,
}

impl Class {
    /// Every class, in the order of their harm.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Destructive];

    /// The name as users write it and as it stands in audit lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Destructive => "Destructive",
        }
    }
}
