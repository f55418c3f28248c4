//! Common Event Format, version 0: a header of seven parts between pipes, then `key=value` pairs.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::reason::Reason;

use super::line::{Decision, Line};
use super::severity::Severity;

/// Writes the event of a line, without a line feed.
pub(super) fn write(line: &Line, out: &mut impl Write) -> io::Result<()> {
    let Line {
        audit,
        time,
        tenant,
        principal,
        principal_uid,
        call,
        trace_id,
        span_id,
        server,
        tool,
        class,
        method,
        arguments,
        decision,
        reason,
        looping,
        generation,
        cost,
        duration_ms,
        suppressed,
        result,
        chain,
        sequence,
        previous,
    } = line;
    let reason = reason.map(Reason::as_str);
    let class_id = reason.unwrap_or(decision.as_str());
    let name = match decision {
        Decision::Admitted => "call about to be forwarded",
        Decision::Allowed => "request allowed",
        Decision::Denied => "request denied",
        Decision::Failed => "call failed",
        Decision::Cleared => "breakers and reports cleared",
    };
    // Every part of the header is from a closed set, so none of them needs an escape.
    let severity = Severity::of(line).cef();
    write!(out, "CEF:0|MCP Fleet|gateway|{audit}|{class_id}|{name}|{severity}|")?;
    let mut pairs = Pairs { out, first: true };
    pairs.add("rt", Some(time.as_millisecond()))?;
    pairs.add("act", Some(decision.as_str()))?;
    pairs.add("outcome", outcome(*decision))?;
    pairs.add("reason", reason)?;
    pairs.add("suser", principal.as_ref())?;
    pairs.add("suid", principal_uid.as_ref())?;
    pairs.add("externalId", call.as_ref())?;
    pairs.add("destinationServiceName", server.as_ref())?;
    pairs.add("requestMethod", method.as_ref())?;
    pairs.add("cnt", *suppressed)?;
    pairs.add("mcpFleetTenant", tenant.as_ref())?;
    pairs.add("mcpFleetTool", tool.as_ref())?;
    pairs.add("mcpFleetClass", class.map(Class::as_str))?;
    pairs.add("mcpFleetLoop", looping.map(Kind::as_str))?;
    pairs.add("mcpFleetTraceId", trace_id.as_ref())?;
    pairs.add("mcpFleetSpanId", span_id.as_ref())?;
    pairs.add("mcpFleetArguments", arguments.as_ref())?;
    pairs.add("mcpFleetResult", result.as_ref())?;
    pairs.add("mcpFleetGeneration", Some(generation))?;
    pairs.add("mcpFleetCost", cost.as_ref())?;
    pairs.add("mcpFleetDurationMs", *duration_ms)?;
    pairs.add("mcpFleetChain", chain.as_ref())?;
    pairs.add("mcpFleetSequence", *sequence)?;
    pairs.add("mcpFleetPrevious", previous.as_ref())
}

/// Returns how the request ended, or `None` if that is still open.
const fn outcome(decision: Decision) -> Option<&'static str> {
    match decision {
        Decision::Admitted => None,
        Decision::Allowed | Decision::Cleared => Some("success"),
        Decision::Denied | Decision::Failed => Some("failure"),
    }
}

/// The pairs of one event.
struct Pairs<'o, W> {
    out: &'o mut W,
    first: bool,
}

impl<W: Write> Pairs<'_, W> {
    /// Writes a pair, if there is a value.
    fn add(&mut self, key: &str, value: Option<impl Display>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        let space = if std::mem::take(&mut self.first) { "" } else { " " };
        write!(self.out, "{space}{key}={}", escaped(&value.to_string()))
    }
}

/// Escapes a value: backslash, equals sign and line breaks as CEF demands, and all other control characters and line
/// separators as `?`. Pipes are escaped in the header only.
fn escaped(value: &str) -> Cow<'_, str> {
    let special = |character: char| matches!(character, '\\' | '=' | '\u{2028}' | '\u{2029}') || character.is_control();
    if !value.contains(special) {
        return Cow::Borrowed(value);
    }
    let mut escaped = String::with_capacity(value.len() + 8);
    for character in value.chars() {
        match character {
            '\\' | '=' => escaped.extend(['\\', character]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            other if special(other) => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}
