//! Kinds of failures, as the label `error_type` (OpenTelemetry `error.type`).

use mcp_fleet_policy::reason::Reason;

/// Who is to blame for a request without a good answer. The reason is in `mcp_pod_denials_total` and the audit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorType {
    /// The gateway refused the request or withheld its answer.
    Refused,
    /// The server did not answer in time.
    Timeout,
    /// The server could not be reached, broke the connection, or did not answer with MCP; or the home of the caller was lost.
    Transport,
    /// The server reported that the tool failed.
    Tool,
    /// The caller did not wait for the answer.
    Cancelled,
}

impl ErrorType {
    /// Returns the value of the label. `tool_error` and `timeout` are values of the OpenTelemetry conventions.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Tool => "tool_error",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<Reason> for ErrorType {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::UpstreamTimeout => Self::Timeout,
            Reason::HomeLost | Reason::UpstreamUnavailable | Reason::UpstreamInvalid => Self::Transport,
            Reason::Cancelled => Self::Cancelled,
            _ => Self::Refused,
        }
    }
}
