//! The protocol revisions that are offered.

/// A revision of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Revision {
    /// `2025-06-18`: initialize, sessions.
    V2025_06_18,
    /// `2025-11-25`: initialize, sessions.
    V2025_11_25,
    /// `2026-07-28`: every request stands for itself.
    V2026_07_28,
}

impl Revision {
    /// Newest first, as they are offered.
    pub(crate) const OFFERED: [Self; 3] = [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18];
    /// What a legacy client is offered that asks for something else.
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

    /// Whether a session is initialized first.
    pub(crate) const fn is_legacy(self) -> bool {
        !matches!(self, Self::V2026_07_28)
    }

    /// The byte that stands for a legacy revision in a session id.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::V2025_06_18 => 1,
            Self::V2025_11_25 => 2,
            Self::V2026_07_28 => 3,
        }
    }

    /// The legacy revision of that byte: nothing else can have a session.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::V2025_06_18),
            2 => Some(Self::V2025_11_25),
            _ => None,
        }
    }
}
