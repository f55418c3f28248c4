//! The settings of a server's loop detection.

use std::time::Duration;

/// What happens to a call that belongs to a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Mode {
    /// Its caller is warned, then the call is refused.
    #[default]
    Enforce,
    /// It is only counted: the caller notices nothing.
    Monitor,
    /// Nothing: the calls of the server are not observed.
    Disabled,
}

/// What happens if a tool is polled and its result does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Polls {
    /// The caller is warned, and has to poll less often.
    #[default]
    Limited,
    /// Nothing: the tool is made to be polled. Its failures still count.
    Tolerated,
}

/// Settings of the loop detection for the calls of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopSettings {
    pub mode: Mode,
    /// Calls that ended longer ago do not count.
    pub window: Duration,
    /// Number of identical calls with the identical result at which the caller is warned. For different calls
    /// without a new result it is half as many again.
    pub identical_calls: u32,
    /// Number of failures of one tool for the same cause at which the caller is warned.
    pub repeated_errors: u32,
    /// Number of repetitions of two to four calls, with the same results, at which the caller is warned.
    pub cycle_repeats: u32,
    /// How long the calls of a loop are refused.
    pub cool_down: Duration,
}

impl LoopSettings {
    /// The settings of a server that has none of its own.
    pub const DEFAULT: Self = Self {
        mode: Mode::Enforce,
        window: Duration::from_secs(6 * 3600),
        identical_calls: 4,
        repeated_errors: 4,
        cycle_repeats: 3,
        cool_down: Duration::from_secs(120),
    };
}

impl Default for LoopSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}
