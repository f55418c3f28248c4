//! The tools that every endpoint has besides those of its server: agents can see their limits, and report that they are
//! stuck.
//!
//! They need no grant. Their names are reserved: no server's tool of such a name exists for callers, whether the tenant
//! has the built-in tools or not.

mod stuck;

use std::sync::{Arc, LazyLock};

use crate::denial::Denial;
use crate::json::{Members, Value, write_str};
use crate::reason::Reason;
use crate::rules::{Arguments, Check, Property, Text};
use crate::schema;

pub use stuck::{COOL_DOWN, Reported, StuckReports, Subject};

/// Largest number of characters of an agent's report.
pub const MAX_REPORT: u32 = 500;
/// Largest number of characters of the name of a tool.
const MAX_NAME: u32 = 128;

/// A built-in tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// Tells the caller who it is and what it may still do.
    FleetStatus,
    /// Pauses the caller's calls, and calls a person.
    FleetReportStuck,
}

static NO_ARGUMENTS: LazyLock<Arc<Arguments>> = LazyLock::new(|| Arc::new(Arguments(Vec::new())));
static REPORT: LazyLock<Arc<Arguments>> = LazyLock::new(|| {
    let text = |name: &str, required, max_length| Property {
        name: name.to_owned(),
        required,
        check: Check::Text(Text {
            one_of: None,
            max_length: Some(max_length),
            patterns: Vec::new(),
            no_option: false,
            path: None,
        }),
        shown: None,
    };
    Arc::new(Arguments(vec![text("reason", true, MAX_REPORT), text("tool", false, MAX_NAME)]))
});

impl BuiltIn {
    /// Every built-in tool, in the order in which they are listed.
    pub const ALL: [Self; 2] = [Self::FleetStatus, Self::FleetReportStuck];

    /// Returns the name of the tool.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FleetStatus => "fleet_status",
            Self::FleetReportStuck => "fleet_report_stuck",
        }
    }

    /// Returns the built-in tool with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == name)
    }

    fn arguments(self) -> &'static Arc<Arguments> {
        match self {
            Self::FleetStatus => &NO_ARGUMENTS,
            Self::FleetReportStuck => &REPORT,
        }
    }

    /// Removes each `null` that stands for an optional argument.
    pub fn leave_out_nulls(self, arguments: &mut Value<'_>) {
        if let Value::Object(members) = arguments {
            self.arguments().leave_out_nulls(members);
        }
    }

    /// Returns whether the tool has an argument with this name.
    pub fn declares(self, argument: &str) -> bool {
        self.arguments().get(argument).is_some()
    }

    /// Checks the arguments of a call; `None` counts as an empty object.
    pub fn admit(self, arguments: Option<&Value<'_>>) -> Result<(), Denial> {
        const EMPTY: &Members<'static> = &Vec::new();
        let members = match arguments {
            None => EMPTY,
            Some(Value::Object(members)) => members,
            Some(_) => return Err(Denial::new(Reason::ArgumentType).with_limit("arguments must be an object")),
        };
        self.arguments().admit(members, &mut Vec::new()).map_err(|violation| violation.into_denial())
    }

    /// Appends the entry of the tool in `tools/list`.
    pub(crate) fn render(self, out: &mut Vec<u8>) {
        let Entry { title, description, output, annotations } = self.entry();
        for (start, text) in [("{\"name\":", self.as_str()), (",\"title\":", title), (",\"description\":", description)]
        {
            out.extend_from_slice(start.as_bytes());
            write_str(text, out);
        }
        out.extend_from_slice(b",\"inputSchema\":");
        out.extend_from_slice(&schema::of(&[self.arguments()], None));
        for (start, json) in [(",\"outputSchema\":", output), (",\"annotations\":", annotations), ("}", "")] {
            out.extend_from_slice(start.as_bytes());
            out.extend_from_slice(json.as_bytes());
        }
    }

    const fn entry(self) -> Entry {
        match self {
            Self::FleetStatus => Entry {
                title: "Your limits",
                description: "Shows who you are, what you may call, which limits and budgets apply to you and what is \
                              left of them, when your credential expires, and which tools are paused for you. Changes \
                              nothing.",
                output: STATUS_SCHEMA,
                annotations: "{\"readOnlyHint\":true,\"destructiveHint\":false,\"idempotentHint\":true,\
                              \"openWorldHint\":false}",
            },
            Self::FleetReportStuck => Entry {
                title: "Report that you are stuck",
                description: "Reports that you make no progress, for example because calls fail again and again. Your \
                              calls are then refused for some minutes (with `tool`: only those of that tool), and a \
                              person is notified with your reason. Call it instead of trying again and again.",
                output: REPORT_SCHEMA,
                annotations: "{\"readOnlyHint\":false,\"destructiveHint\":false,\"idempotentHint\":true,\
                              \"openWorldHint\":false}",
            },
        }
    }
}

/// What a tool list shows of a tool.
struct Entry {
    title: &'static str,
    description: &'static str,
    /// JSON Schema of the result.
    output: &'static str,
    /// JSON object.
    annotations: &'static str,
}

const STATUS_SCHEMA: &str = include_str!("status.schema.json");
const REPORT_SCHEMA: &str = include_str!("report.schema.json");

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(tool: BuiltIn, arguments: &str) -> Option<Reason> {
        let value = crate::json::parse(arguments.as_bytes(), &crate::json::Limits::REQUEST).unwrap();
        tool.admit(Some(&value)).err().map(|denial| denial.reason)
    }

    #[test]
    fn arguments_are_checked_as_those_of_any_tool() {
        use BuiltIn::{FleetReportStuck, FleetStatus};
        assert_eq!(FleetStatus.admit(None), Ok(()));
        assert_eq!(admit(FleetStatus, r#"{"a":1}"#), Some(Reason::ArgumentUndeclared));
        assert_eq!(admit(FleetReportStuck, r#"{"reason":"- no progress","tool":"read"}"#), None);
        assert_eq!(admit(FleetReportStuck, "{}"), Some(Reason::ArgumentMissing));
        assert_eq!(admit(FleetReportStuck, r#"{"reason":7}"#), Some(Reason::ArgumentType));
        let report = |length| format!(r#"{{"reason":"{}"}}"#, "é".repeat(length));
        assert_eq!(admit(FleetReportStuck, &report(500)), None);
        assert_eq!(admit(FleetReportStuck, &report(501)), Some(Reason::ArgumentOutOfRange));
        assert!(admit(FleetReportStuck, r#"{"reason":"a\u0000"}"#).is_some());
        let mut value = crate::json::parse(br#"{"reason":"a","tool":null}"#, &crate::json::Limits::REQUEST).unwrap();
        FleetReportStuck.leave_out_nulls(&mut value);
        assert_eq!(FleetReportStuck.admit(Some(&value)), Ok(()));
    }

    #[test]
    fn entries_are_valid_and_say_what_the_tools_do() {
        for tool in BuiltIn::ALL {
            let mut out = Vec::new();
            tool.render(&mut out);
            assert!(!out.contains(&b'\n'), "an event stream would be cut");
            let entry: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(entry["name"], tool.as_str());
            assert_eq!(BuiltIn::from_name(tool.as_str()), Some(tool));
            assert_eq!(entry["inputSchema"]["additionalProperties"], false);
            assert_eq!(entry["outputSchema"]["type"], "object");
            assert_eq!(entry["annotations"]["readOnlyHint"], tool == BuiltIn::FleetStatus);
        }
    }
}
