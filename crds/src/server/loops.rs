//! Settings of the loop detection.

use mcp_fleet_policy::loops::{LoopSettings, Mode};
use mcp_fleet_policy::units::{Window, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::integer;
use crate::schema::{duration_within, rules};

/// What happens to an agent that goes round in circles: that repeats calls without new results. Its calls of this server
/// are judged together with those of all its other servers, and by their results: calls with new results are never part of a
/// loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    duration_within("loops.window", limits::LOOP_WINDOW),
    duration_within("loops.coolDown", limits::LOOP_COOL_DOWN),
])))]
pub struct Loops {
    /// Enforce: a caller in a loop is warned, then has to pause between its calls, and in the end the calls of the loop are
    /// refused for coolDown. Monitor: loops are only counted. Disabled: the calls of this server are not observed. Default:
    /// Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// Calls that ended longer ago do not count: a duration from 1m to 24h. Default: 6h.
    #[serde(default = "default_window")]
    pub window: Window,
    /// Number of identical calls with identical results at which the caller is warned, 2 to 12. Of different calls without
    /// any new result it takes half as many again. From twice the number on, calls that fail or bring nothing new are refused;
    /// successful identical calls are polls, which only have to pause longer and longer. Default: 4.
    #[serde(default = "default_identical_calls", deserialize_with = "integer::required")]
    #[schemars(range(min = 2, max = 12))]
    pub identical_calls: u32,
    /// Number of failures of one tool for the same cause, whatever its arguments are, at which the caller is warned, 2 to 16.
    /// From twice the number on, the tool is refused. Default: 4.
    #[serde(default = "default_repeated_errors", deserialize_with = "integer::required")]
    #[schemars(range(min = 2, max = 16))]
    pub repeated_errors: u32,
    /// Number of repetitions of the same two to four calls with the same results at which the caller is warned, 2 to 5. From
    /// twice the number on, the calls are refused. Default: 3.
    #[serde(default = "default_cycle_repeats", deserialize_with = "integer::required")]
    #[schemars(range(min = 2, max = 5))]
    pub cycle_repeats: u32,
    /// How long the calls of a loop are refused: a duration from 10s to 1h. It doubles each time that the loop goes on
    /// afterwards, and is longer for a slow loop, up to 16 times this duration. Default: 2m.
    #[serde(default = "default_cool_down")]
    pub cool_down: Window,
}

const DEFAULT: LoopSettings = LoopSettings::DEFAULT;

const fn default_window() -> Window {
    Window::from_secs(DEFAULT.window.as_secs())
}

const fn default_identical_calls() -> u32 {
    DEFAULT.identical_calls
}

const fn default_repeated_errors() -> u32 {
    DEFAULT.repeated_errors
}

const fn default_cycle_repeats() -> u32 {
    DEFAULT.cycle_repeats
}

const fn default_cool_down() -> Window {
    Window::from_secs(DEFAULT.cool_down.as_secs())
}

impl Default for Loops {
    fn default() -> Self {
        Self {
            mode: DEFAULT.mode,
            window: default_window(),
            identical_calls: default_identical_calls(),
            repeated_errors: default_repeated_errors(),
            cycle_repeats: default_cycle_repeats(),
            cool_down: default_cool_down(),
        }
    }
}

impl From<&Loops> for LoopSettings {
    fn from(loops: &Loops) -> Self {
        let Loops { mode, window, identical_calls, repeated_errors, cycle_repeats, cool_down } = *loops;
        Self { mode, window: window.get(), identical_calls, repeated_errors, cycle_repeats, cool_down: cool_down.get() }
    }
}
