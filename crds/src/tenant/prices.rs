//! The lowest prices that the tools of a tenant may have.

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::units::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pattern of a pattern for names of servers.
const SERVER_PATTERN: &str = "^[a-z0-9*-]+$";
/// Pattern of a pattern for names of tools.
const TOOL_PATTERN: &str = "^[A-Za-z0-9_./*$ -]+$";

/// The lowest price of the tools that match every field that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceFloor {
    /// Names of servers, 1 to 16 patterns: `*` matches any characters. Absent: any server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63), regex(pattern = SERVER_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub servers: Option<Vec<String>>,
    /// Names of tools, 1 to 64 patterns: `*` matches any characters. Absent: any tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 128), regex(pattern = TOOL_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub tools: Option<Vec<String>>,
    /// Classes of tools: Read, Write, Destructive. Absent: any class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub classes: Option<Vec<Class>>,
    /// The lowest price of one call, in the currency of `spendLimit`: a decimal string with at most six decimals, such as
    /// "0.001", up to "1000000000".
    pub per_call: Micros,
}

impl PriceFloor {
    /// Returns whether the floor applies to a tool.
    pub fn applies_to(&self, server: &str, tool: &str, class: Class) -> bool {
        let any = |patterns: &Option<Vec<String>>, name: &str| {
            patterns.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, name)))
        };
        any(&self.servers, server)
            && any(&self.tools, tool)
            && self.classes.as_ref().is_none_or(|classes| classes.contains(&class))
    }
}

/// Returns whether a pattern matches a whole name. `*` matches any characters, and none.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place leaves the most for the parts that follow.
        let Some((_, after)) = name.split_once(part) else { return false };
        name = after;
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_characters() {
        for (pattern, name, expected) in [
            ("send_mail", "send_mail", true),
            ("send_mail", "send_mail2", false),
            ("*", "", true),
            ("send_*", "send_", true),
            ("send_*", "resend_mail", false),
            ("*_mail", "send_mail", true),
            ("*_mail", "send_mails", false),
            ("a*b*a", "aba", true),
            ("a*b*a", "ab", false),
            ("a*a", "a", false),
            ("**x**", "fs/x.y", true),
            ("s*d_*l", "send_mail", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_floor_applies_to_what_matches_every_field() {
        let floor = |value: serde_json::Value| serde_json::from_value::<PriceFloor>(value).expect("a floor");
        let every = floor(serde_json::json!({"perCall": "1"}));
        assert!(every.applies_to("mail", "send", Class::Read));
        let some = floor(serde_json::json!({
            "servers": ["mail", "smtp-*"], "tools": ["send*"], "classes": ["Write"], "perCall": "1"}));
        assert!(some.applies_to("smtp-2", "send_mail", Class::Write) && some.applies_to("mail", "send", Class::Write));
        assert!(!some.applies_to("mail2", "send", Class::Write));
        assert!(!some.applies_to("mail", "resend", Class::Write));
        assert!(!some.applies_to("mail", "send", Class::Read));
    }
}
