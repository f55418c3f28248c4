//! How severe an event is: the same in every format.

use mcp_fleet_policy::reason::{Reason, Stage};

use super::line::{Decision, Line};

/// The severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// As intended.
    Informational,
    /// Refused or failed, as happens in normal operation.
    Low,
    /// An agent that needs a person, or somebody who tries what is not theirs.
    Medium,
    /// The gateway could not do its work.
    High,
}

impl Severity {
    /// Returns the severity of a line.
    pub(super) const fn of(line: &Line) -> Self {
        match (line.decision, line.reason) {
            (Decision::Denied | Decision::Failed, Some(reason)) => Self::of_reason(reason),
            (Decision::Denied | Decision::Failed, None) => Self::Low,
            (Decision::Admitted | Decision::Allowed | Decision::Cleared, _) => Self::Informational,
        }
    }

    const fn of_reason(reason: Reason) -> Self {
        match (reason, reason.stage()) {
            (Reason::TokenExpired, _) => Self::Low,
            (Reason::FleetStopped | Reason::PolicyMissing | Reason::PolicyStale, _) | (_, Stage::Audit) => Self::High,
            (Reason::LoopDetected | Reason::ReportedStuck | Reason::PathOutsideRoots | Reason::OriginRefused, _)
            | (_, Stage::Authenticate | Stage::Authorise) => Self::Medium,
            (_, Stage::Policy | Stage::Decode | Stage::Validate | Stage::Govern | Stage::Forward) => Self::Low,
        }
    }

    /// Returns `severity_id` and `severity` of OCSF.
    pub(super) const fn ocsf(self) -> (u8, &'static str) {
        match self {
            Self::Informational => (1, "Informational"),
            Self::Low => (2, "Low"),
            Self::Medium => (3, "Medium"),
            Self::High => (4, "High"),
        }
    }

    /// Returns the severity of CEF, from 0 to 10.
    pub(super) const fn cef(self) -> u8 {
        match self {
            Self::Informational => 1,
            Self::Low => 3,
            Self::Medium => 5,
            Self::High => 8,
        }
    }
}
