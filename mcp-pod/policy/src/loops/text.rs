//! What a caller is told about a loop, as text for a model.

use std::time::Duration;

use super::ladder::Evidence;
use super::rules::Kind;
use crate::denial::{Denial, ceil_seconds};
use crate::reason::Reason;

impl Evidence {
    /// Returns what happened, as a sentence without a full stop. `tool` and `server` are names of the policy.
    pub fn describe(&self, server: &str, tool: &str) -> String {
        let (count, seconds) = (self.count, ceil_seconds(self.duration));
        let tool = format!("{tool:?} of server {server:?}");
        match self.kind {
            Kind::Unchanged => {
                format!(
                    "{tool} was called {count} times in {seconds} s with the same arguments and had the same result"
                )
            }
            Kind::Retry => format!(
                "{tool} was called {count} times in {seconds} s with the same arguments and failed in the same way"
            ),
            Kind::Cycle => format!(
                "the same calls, among them {tool}, were repeated {count} times in {seconds} s with the same results"
            ),
            Kind::Failing => {
                format!("{tool} failed {count} times in {seconds} s, whatever the arguments were, and never succeeded")
            }
            Kind::NothingNew => {
                format!("the last {count} calls in {seconds} s, among them {tool}, had no result that was new")
            }
            Kind::Storm => format!("{tool} was called {count} times in {seconds} s with the same arguments"),
        }
    }

    /// Returns the denial of a call of this tool.
    pub fn denial(&self, server: &str, tool: &str) -> Denial {
        Denial {
            retry_after: Some(self.wait),
            ..Denial::new(Reason::LoopDetected).with_limit(self.describe(server, tool))
        }
    }

    /// Returns the warning to the caller of this tool.
    pub fn warning(&self, server: &str, tool: &str) -> String {
        let mut text = format!("Warning (loop_detected): {}.", self.describe(server, tool));
        if self.wait > Duration::ZERO {
            let calls = match self.kind {
                Kind::Failing | Kind::NothingNew => "Calls of this tool",
                Kind::Unchanged | Kind::Retry | Kind::Cycle | Kind::Storm => "The same calls",
            };
            let wait = format!(" {calls} are refused for the next {} s.", ceil_seconds(self.wait));
            text.push_str(&wait);
        }
        text.push_str(" Do something else: another tool, other arguments, or tell a person that you are stuck.");
        text
    }
}
