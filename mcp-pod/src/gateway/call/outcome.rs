//! How a call ended, and what that shows about its server.

use bytes::Bytes;
use mcp_fleet_policy::breaker::CallEnd;
use mcp_fleet_policy::budget::Charge;
use mcp_fleet_policy::reason::Reason;

/// How a call ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer of the server was released.
    Answered {
        /// Result or error, as the server wrote it.
        answer: Bytes,
        /// Whether the server reported that the tool failed.
        tool_error: bool,
        charge: Charge,
    },
    /// The call was refused before the server saw it.
    Denied(Reason),
    /// The server, which nobody had called for a while, was still starting when the time was over, and has not seen the call. That is
    /// neither its fault nor the caller's.
    Starting,
    /// There was no answer that could be released.
    Failed(Reason, Charge),
}

impl Outcome {
    /// Returns whether the server is up, or `None` if the outcome does not show that.
    pub(super) const fn is_up(&self) -> Option<bool> {
        match self {
            Self::Answered { .. } => Some(true),
            Self::Failed(Reason::UpstreamUnavailable, _) => Some(false),
            Self::Denied(_) | Self::Starting | Self::Failed(..) => None,
        }
    }

    /// Returns what the outcome shows the breakers about the tool, or `None` if it shows nothing.
    pub(super) const fn call_end(&self) -> Option<CallEnd> {
        match self {
            Self::Answered { .. } | Self::Failed(Reason::ResponseTooLarge, _) => Some(CallEnd::Answered),
            Self::Failed(Reason::UpstreamUnavailable | Reason::UpstreamTimeout | Reason::UpstreamInvalid, _) => {
                Some(CallEnd::Failed)
            }
            Self::Failed(Reason::Cancelled, _) => Some(CallEnd::Cancelled),
            Self::Denied(_) | Self::Starting | Self::Failed(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_opens_for_a_server_that_takes_no_calls_and_not_for_one_that_starts() {
        assert_eq!(Outcome::Starting.call_end(), None);
        for charge in [Charge::Nothing, Charge::Full] {
            assert_eq!(Outcome::Failed(Reason::UpstreamTimeout, charge).call_end(), Some(CallEnd::Failed));
        }
    }
}
