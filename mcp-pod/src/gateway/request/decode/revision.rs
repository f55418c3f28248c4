//! The protocol revisions that the gateway offers.

/// A revision of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Revision {
    /// `2025-06-18`: `initialize` and sessions.
    V2025_06_18,
    /// `2025-11-25`: `initialize` and sessions.
    V2025_11_25,
    /// `2026-07-28`: stateless, each request is complete in itself.
    V2026_07_28,
}

impl Revision {
    /// All revisions, newest first, in the order in which they are offered.
    pub(crate) const OFFERED: [Self; 3] = [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18];
    /// Revision offered to a legacy client that asks for an unknown one.
    pub(crate) const NEWEST_LEGACY: Self = Self::V2025_11_25;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::OFFERED.into_iter().find(|revision| revision.as_str() == name)
    }

    /// Returns whether the revision has `initialize` and sessions.
    pub(crate) const fn is_legacy(self) -> bool {
        !matches!(self, Self::V2026_07_28)
    }

    /// Returns the byte that encodes the revision in a session id.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::V2025_06_18 => 1,
            Self::V2025_11_25 => 2,
            Self::V2026_07_28 => 3,
        }
    }

    /// Returns the revision that the byte encodes: a legacy one, because no other has sessions.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::V2025_06_18),
            2 => Some(Self::V2025_11_25),
            _ => None,
        }
    }
}
