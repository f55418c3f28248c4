//! One audit line of a gateway, with everything that it may contain.

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::reason::Reason;
use serde::{Deserialize, Deserializer};

/// The version of the format of audit lines that this program knows.
const VERSION: u64 = 1;

/// An audit line. A field that this version does not know makes the line unreadable: what is exported is complete.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Line {
    #[serde(deserialize_with = "version")]
    pub(super) audit: u64,
    pub(super) time: jiff::Timestamp,
    pub(super) tenant: Option<String>,
    pub(super) principal: Option<String>,
    pub(super) principal_uid: Option<String>,
    pub(super) call: Option<String>,
    #[serde(rename = "trace_id")]
    pub(super) trace_id: Option<String>,
    #[serde(rename = "span_id")]
    pub(super) span_id: Option<String>,
    pub(super) server: Option<String>,
    pub(super) tool: Option<String>,
    pub(super) class: Option<Class>,
    pub(super) method: Option<String>,
    pub(super) arguments: Option<String>,
    pub(super) decision: Decision,
    #[serde(default, deserialize_with = "reason")]
    pub(super) reason: Option<Reason>,
    #[serde(rename = "loop", default, deserialize_with = "kind")]
    pub(super) looping: Option<Kind>,
    pub(super) generation: u64,
    pub(super) cost: Option<String>,
    pub(super) duration_ms: Option<f64>,
    pub(super) suppressed: Option<u64>,
    pub(super) result: Option<String>,
    /// Absent in lines of versions that had no chain.
    pub(super) chain: Option<String>,
    pub(super) sequence: Option<u64>,
    pub(super) previous: Option<String>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Decision {
    Admitted,
    Allowed,
    Denied,
    Failed,
    Cleared,
}

impl Decision {
    /// Every decision.
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] = [Self::Admitted, Self::Allowed, Self::Denied, Self::Failed, Self::Cleared];

    /// Returns the name in audit lines.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Cleared => "cleared",
        }
    }
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let version = u64::deserialize(deserializer)?;
    let unknown =
        || serde::de::Error::custom(format!("its format has version {version}, and this program knows {VERSION}"));
    if version == VERSION { Ok(version) } else { Err(unknown()) }
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Reason>, D::Error> {
    let name = String::deserialize(deserializer)?;
    Reason::from_name(&name).map(Some).ok_or_else(|| unknown("reason", &name))
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Kind>, D::Error> {
    let name = String::deserialize(deserializer)?;
    Kind::ALL.into_iter().find(|kind| kind.as_str() == name).map(Some).ok_or_else(|| unknown("loop", &name))
}

fn unknown<E: serde::de::Error>(field: &str, name: &str) -> E {
    let name: String = name.chars().take(64).collect();
    E::custom(format!("{field} is {name:?}, which this program does not know; use the version of the gateway"))
}
