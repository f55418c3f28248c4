//! What stands in an audit line.
//!
//! Names come from API objects, except those that no object has (an unknown tool): these are what the caller sent,
//! cut short and escaped. Values of arguments and tokens never come here, only a keyed digest.

use std::io::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use mcp_fleet_policy::denial::echo;
use mcp_fleet_policy::json::write_str;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;
use ulid::Ulid;

/// How a decision went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Done, as far as the gateway is concerned.
    Allowed,
    /// Rejection; the server never saw it.
    Denied,
    /// Allowed, but no answer came back that could be released.
    Failed,
}

impl Decision {
    /// The name as it stands in audit lines and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A name, and who chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// The name of an API object, or one of a closed set.
    Known(&'a str),
    /// What a caller sent.
    Sent(&'a str),
}

/// One decision.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When it was made.
    pub time: Timestamp,
    /// The call's id, in the envelope to the shim as well.
    pub call: Ulid,
    /// The tenant; empty before there is a policy.
    pub tenant: &'a str,
    /// `<namespace>/<name>` of the caller, once it is authenticated.
    pub principal: &'a str,
    /// Its UID.
    pub principal_uid: &'a str,
    /// The server, or what the caller sent instead.
    pub server: Name<'a>,
    /// The tool, or what the caller sent instead.
    pub tool: Name<'a>,
    /// The class of the tool, if there is one of that name.
    pub class: &'static str,
    /// The JSON-RPC method, or what the caller sent instead.
    pub method: Name<'a>,
    /// Keyed digest of the arguments.
    pub arguments: Option<&'a [u8]>,
    /// How it went.
    pub decision: Decision,
    /// Why, unless it was allowed.
    pub reason: Option<Reason>,
    /// The generation of the policy that decided; 0 if there was none.
    pub generation: u64,
    /// What it cost.
    pub cost: Micros,
    /// From the head of the request to the last byte of the answer.
    pub duration: Duration,
    /// BLAKE3 of the result that was released.
    pub result: Option<&'a [u8]>,
}

impl Entry<'_> {
    /// Writes the line, with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut call = [0; ulid::ULID_LEN];
        // Writing to a vector cannot fail.
        let _ = write!(out, "{{\"audit\":1,\"time\":\"{:.6}\"", self.time);
        name(out, "tenant", self.tenant);
        name(out, "principal", self.principal);
        name(out, "principalUid", self.principal_uid);
        name(out, "call", self.call.array_to_str(&mut call));
        any(out, "server", self.server);
        any(out, "tool", self.tool);
        name(out, "class", self.class);
        any(out, "method", self.method);
        digest(out, "arguments", "blake3-keyed", self.arguments);
        name(out, "decision", self.decision.as_str());
        name(out, "reason", self.reason.map_or("", Reason::as_str));
        let millis = self.duration.as_secs_f64() * 1e3;
        let _ = write!(out, ",\"generation\":{},\"cost\":\"{}\"", self.generation, self.cost);
        let _ = write!(out, ",\"durationMs\":{millis:.3}");
        digest(out, "result", "blake3", self.result);
        out.extend_from_slice(b"}\n");
    }
}

/// A field whose value comes from an API object or a closed set; left out when it is empty.
fn name(out: &mut Vec<u8>, field: &str, value: &str) {
    if !value.is_empty() {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b"\":");
        write_str(value, out);
    }
}

/// A field whose value a caller may have chosen: then printable, and short.
fn any(out: &mut Vec<u8>, field: &str, value: Name<'_>) {
    match value {
        Name::Known(value) => name(out, field, value),
        Name::Sent(value) => name(out, field, &echo(value)),
    }
}

fn digest(out: &mut Vec<u8>, field: &str, kind: &str, digest: Option<&[u8]>) {
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

    use super::*;

    fn entry<'a>() -> Entry<'a> {
        Entry {
            time: "2026-11-22T20:00:00.123456Z".parse().unwrap(),
            call: Ulid::from_parts(0, 7),
            tenant: "acme",
            principal: "acme/coder",
            principal_uid: "uid",
            server: Name::Known("files"),
            tool: Name::Known("read_text_file"),
            class: "Read",
            method: Name::Known("tools/call"),
            arguments: Some(&[0xab; 32]),
            decision: Decision::Allowed,
            reason: None,
            generation: 7,
            cost: Micros::new(1000),
            duration: Duration::from_micros(1234),
            result: None,
        }
    }

    fn written(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        entry.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object_with_the_agreed_fields() {
        let line = written(&entry());
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
    fn the_document_has_every_field() {
        let table = include_str!("../../../../docs/audit.md");
        let mut documented: Vec<_> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        documented.sort_unstable();
        let line = written(&Entry { reason: Some(Reason::RateLimited), result: Some(&[0xab; 32]), ..entry() });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, documented);
    }

    #[test]
    fn what_callers_send_is_cut_and_cannot_break_the_line() {
        let hostile = "\"}\n{\"audit\":1,\u{202e}\u{7}".repeat(10_000);
        let sent = Name::Sent(&hostile);
        let line = written(&Entry { tool: sent, method: sent, server: sent, ..entry() });
        assert!(line.len() < 8192, "{} bytes", line.len());
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["audit"], 1);
    }
}
