//! One audit line.
//!
//! Names come from API objects. A name that no object has (an unknown tool) is what the caller sent, cut and escaped.
//! Arguments appear only as a keyed digest, tokens not at all.

use std::io::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::denial::escape_name;
use mcp_fleet_policy::json::write_str;
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;
use ulid::Ulid;

use super::{Name, Subject};
use crate::gateway::trace::TraceContext;

/// Result of the evaluation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Decision {
    /// The request was answered, and a call reached its server.
    Allowed,
    /// The request was denied; the server never saw it.
    Denied,
    /// The call was allowed, but there was no answer that could be released.
    Failed,
}

impl Decision {
    /// Returns the name in audit lines and metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// `decision` in the line that is written before a call is forwarded. It is not a [`Decision`], because the call's
/// outcome is still open: its second line has that.
const ADMITTED: &str = "admitted";

/// `decision` in the line about breakers and reports that a person cleared. It concerns no request.
const CLEARED: &str = "cleared";

/// A decision, without the names of its [`Subject`].
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// When the decision was made.
    time: Timestamp,
    /// ID of the call; the envelope to the shim carries it too. Absent if the line is about more than one request.
    call: Option<Ulid>,
    /// Present if `call` is.
    trace: Option<TraceContext>,
    decision: &'static str,
    /// Absent if the request was allowed.
    reason: Option<Reason>,
    /// Absent while it is not known.
    cost: Option<Micros>,
    /// From the head of the request until it was rejected, answered or settled. Absent if the line is about more than
    /// one request.
    duration: Option<Duration>,
    /// Number of rejections, if the line is about more than one.
    suppressed: Option<u64>,
    /// The kind of loop that the call is part of.
    pub(crate) looping: Option<Kind>,
    /// Keyed BLAKE3 of the arguments.
    pub(crate) arguments: Option<[u8; 32]>,
    /// BLAKE3 of the result that was released.
    pub(crate) result: Option<[u8; 32]>,
}

impl Line {
    /// Returns the line, without digests, for a decision made just now.
    pub(crate) fn new(
        call: Ulid,
        trace: TraceContext,
        decision: Decision,
        reason: Option<Reason>,
        cost: Micros,
        duration: Duration,
    ) -> Self {
        Self { reason, cost: Some(cost), ..Self::empty(decision.as_str()) }.of_call(call, trace, duration)
    }

    /// Returns the line of a call that is about to be forwarded.
    pub(crate) fn admitted(call: Ulid, trace: TraceContext, arguments: [u8; 32], duration: Duration) -> Self {
        Self { arguments: Some(arguments), ..Self::empty(ADMITTED) }.of_call(call, trace, duration)
    }

    /// Returns the line of rejections that have no line of their own.
    pub(crate) fn suppressed(reason: Reason, count: u64) -> Self {
        Self { reason: Some(reason), suppressed: Some(count), ..Self::empty(Decision::Denied.as_str()) }
    }

    /// Returns the line about a principal whose breakers and reports a person cleared.
    pub(crate) fn cleared() -> Self {
        Self::empty(CLEARED)
    }

    fn of_call(self, call: Ulid, trace: TraceContext, duration: Duration) -> Self {
        Self { call: Some(call), trace: Some(trace), duration: Some(duration), ..self }
    }

    fn empty(decision: &'static str) -> Self {
        Self {
            time: Timestamp::now(),
            call: None,
            trace: None,
            decision,
            reason: None,
            cost: None,
            duration: None,
            suppressed: None,
            looping: None,
            arguments: None,
            result: None,
        }
    }

    /// Appends the JSON object of the line without its closing brace: the fields of the chain come last.
    pub(super) fn write(&self, subject: &Subject<'_>, out: &mut Vec<u8>) {
        let mut call = [0; ulid::ULID_LEN];
        // Writing to a vector cannot fail.
        let _ = write!(out, "{{\"audit\":1,\"time\":\"{:.6}\"", self.time);
        known(out, "tenant", &subject.tenant);
        known(out, "principal", &subject.principal);
        known(out, "principalUid", &subject.principal_uid);
        known(out, "call", self.call.map_or("", |id| id.array_to_str(&mut call)));
        if let Some(trace) = self.trace {
            let _ = write!(out, ",\"trace_id\":\"{}\",\"span_id\":\"{}\"", trace.trace_id(), trace.span_id());
        }
        name(out, "server", &subject.server);
        name(out, "tool", &subject.tool);
        known(out, "class", subject.class.map_or("", Class::as_str));
        name(out, "method", &subject.method);
        digest(out, "arguments", "blake3-keyed", self.arguments.as_ref());
        known(out, "decision", self.decision);
        known(out, "reason", self.reason.map_or("", Reason::as_str));
        known(out, "loop", self.looping.map_or("", Kind::as_str));
        let _ = write!(out, ",\"generation\":{}", subject.generation);
        if let Some(cost) = self.cost {
            let _ = write!(out, ",\"cost\":\"{cost}\"");
        }
        if let Some(duration) = self.duration {
            let _ = write!(out, ",\"durationMs\":{:.3}", duration.as_secs_f64() * 1e3);
        }
        if let Some(count) = self.suppressed {
            let _ = write!(out, ",\"suppressed\":{count}");
        }
        digest(out, "result", "blake3", self.result.as_ref());
    }
}

/// Writes a field whose value comes from an API object or a closed set. Empty fields are left out.
fn known(out: &mut Vec<u8>, field: &str, value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b"\":");
        write_str(value, out);
    }
}

/// Writes a field whose value a caller may have sent, which is then cut and escaped.
fn name(out: &mut Vec<u8>, field: &str, value: &Name<'_>) {
    match value {
        Name::Known(value) => known(out, field, value),
        Name::Sent(value) => known(out, field, &escape_name(value)),
    }
}

fn digest(out: &mut Vec<u8>, field: &str, kind: &str, digest: Option<&[u8; 32]>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if let Some(digest) = digest {
        let _ = write!(out, ",\"{field}\":\"{kind}:");
        for byte in digest {
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mcp_fleet_audit::Chain;

    use super::*;

    fn line() -> Line {
        Line {
            time: "2026-11-22T20:00:00.123456Z".parse().unwrap(),
            call: Some(Ulid::from_parts(0, 7)),
            trace: Some(TraceContext::new(Ulid::from_parts(0, 7), None)),
            decision: Decision::Allowed.as_str(),
            reason: None,
            cost: Some(Micros::new(1000)),
            duration: Some(Duration::from_micros(1234)),
            suppressed: None,
            looping: None,
            arguments: Some([0xab; 32]),
            result: None,
        }
    }

    fn subject() -> Subject<'static> {
        Subject {
            tenant: "acme".into(),
            generation: 7,
            principal: "acme/coder".into(),
            principal_uid: "uid".into(),
            server: Name::Known("files".into()),
            tool: Name::Known("read_text_file".into()),
            class: Some(Class::Read),
            method: Name::Known("tools/call".into()),
        }
    }

    /// Returns the second line of a chain.
    fn written(line: &Line, subject: &Subject<'_>) -> String {
        let (mut open, mut out) = (Vec::new(), Vec::new());
        line.write(subject, &mut open);
        let mut chain = Chain::new(Ulid::from_parts(0, 8));
        chain.link(b"{\"audit\":1", &mut Vec::new());
        chain.link(&open, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object() {
        let line = written(&line(), &subject());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["audit"], 1);
        assert_eq!(value["time"], "2026-11-22T20:00:00.123456Z");
        assert_eq!(value["arguments"], format!("blake3-keyed:{}", "ab".repeat(32)));
        assert_eq!(value["cost"], "0.001");
        assert_eq!(value["durationMs"], 1.234);
        assert_eq!(value.get("reason"), None);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn the_documentation_lists_every_field() {
        let table = include_str!("../../../../docs/audit.md").split("## Traces").next().unwrap();
        let mut documented: Vec<_> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        documented.sort_unstable();
        let all = Line {
            reason: Some(Reason::LoopDetected),
            looping: Some(Kind::Retry),
            result: Some([0xab; 32]),
            suppressed: Some(1),
            ..line()
        };
        let line = written(&all, &subject());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, documented);
    }

    #[test]
    fn the_documentation_lists_every_decision() {
        let table = include_str!("../../../../docs/audit.md");
        let row = table.lines().find(|line| line.starts_with("| `decision`")).unwrap();
        let decisions = [Decision::Allowed, Decision::Denied, Decision::Failed].map(Decision::as_str);
        for decision in decisions.into_iter().chain([ADMITTED, CLEARED]) {
            assert!(row.contains(&format!("`{decision}`")), "{decision}");
        }
    }

    #[test]
    fn the_documentation_lists_every_kind_of_loop() {
        let table = include_str!("../../../../docs/audit.md");
        let row = table.lines().find(|line| line.starts_with("| `loop`")).unwrap();
        assert!(Kind::ALL.iter().all(|kind| row.contains(&format!("`{}`", kind.as_str()))), "{row}");
    }

    #[test]
    fn text_from_callers_is_cut_and_cannot_break_the_line() {
        let hostile = "\"}\n{\"audit\":1,\u{202e}\u{7}".repeat(10_000);
        let sent = Name::Sent(&hostile);
        let line = written(&line(), &Subject { tool: sent.clone(), method: sent.clone(), server: sent, ..subject() });
        assert!(line.len() < 8192, "{} bytes", line.len());
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["audit"], 1);
    }
}
