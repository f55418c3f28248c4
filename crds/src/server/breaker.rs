//! The circuit breakers of a server's tools.

use mcp_fleet_policy::model;
use mcp_fleet_policy::units::{Window, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::integer;
use crate::schema::{duration_within, rules};

/// When the circuit breakers of a server's tools open and close. Each tool has one breaker for every principal and one for
/// all of them. An open breaker refuses calls, and then lets a few through to find out whether the tool works again.
///
/// A call fails if the server cannot be reached, breaks the connection, does not answer within `limits.timeout` or does not
/// answer with MCP. An error that the tool itself reports is not a failure. A principal's failures open only its own
/// breaker; the one for all opens on failures that at least two principals saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    duration_within("breaker.openFor", limits::BREAKER_OPEN),
    optional_duration(duration_within("breaker.slowCallDuration", limits::SLOW_CALL)),
])))]
pub struct Breaker {
    /// Share of failed calls, in percent, from which on a breaker opens: 1 to 100. Default: 50.
    #[serde(default = "default_error_percent", deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 100))]
    pub error_percent: u32,
    /// Share of slow calls, in percent, from which on a principal's own breaker opens: 1 to 100. Has no effect without
    /// `slowCallDuration`. Default: 100.
    #[serde(default = "default_slow_call_percent", deserialize_with = "integer::required")]
    #[schemars(range(min = 1, max = 100))]
    pub slow_call_percent: u32,
    /// Time at the server from which on a call is slow: a duration from 10ms to 1h, shorter than `limits.timeout`. Absent:
    /// no call is slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_call_duration: Option<Window>,
    /// Number of the latest calls whose shares count, 2 to 100. With fewer calls, a breaker does not open. Calls are
    /// forgotten when the tool was not called for 10 minutes. Default: 20.
    #[serde(default = "default_minimum_calls", deserialize_with = "integer::required")]
    #[schemars(range(min = 2, max = 100))]
    pub minimum_calls: u32,
    /// How long an open breaker refuses all calls: a duration from 1s to 1h. Default: 30s.
    #[serde(default = "default_open_for")]
    pub open_for: Window,
    /// Number of calls that a breaker lets through at a time after `openFor`, 2 to 10. If so many are answered, it closes.
    /// Default: 3.
    #[serde(default = "default_half_open_calls", deserialize_with = "integer::required")]
    #[schemars(range(min = 2, max = 10))]
    pub half_open_calls: u32,
}

const fn default_error_percent() -> u32 {
    model::Breaker::DEFAULT.error_percent
}

const fn default_slow_call_percent() -> u32 {
    100
}

const fn default_minimum_calls() -> u32 {
    model::Breaker::DEFAULT.minimum_calls
}

const fn default_open_for() -> Window {
    Window::from_secs(30)
}

const fn default_half_open_calls() -> u32 {
    model::Breaker::DEFAULT.half_open_calls
}

/// Returns the rule for a field that may be absent.
fn optional_duration((rule, message): (String, String)) -> (String, String) {
    (format!("!has(self.slowCallDuration) || ({rule})"), message)
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            error_percent: default_error_percent(),
            slow_call_percent: default_slow_call_percent(),
            slow_call_duration: None,
            minimum_calls: default_minimum_calls(),
            open_for: default_open_for(),
            half_open_calls: default_half_open_calls(),
        }
    }
}

impl From<&Breaker> for model::Breaker {
    fn from(breaker: &Breaker) -> Self {
        let Breaker { error_percent, slow_call_percent, slow_call_duration, minimum_calls, open_for, half_open_calls } =
            *breaker;
        Self {
            error_percent,
            slow_calls: slow_call_duration
                .map(|duration| model::SlowCalls { percent: slow_call_percent, duration: duration.get() }),
            minimum_calls,
            open_for: open_for.get(),
            half_open_calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_settings_has_the_default_ones() {
        assert_eq!(model::Breaker::from(&Breaker::default()), model::Breaker::DEFAULT);
    }
}
