//! OCSF 1.6.0: the class API Activity (6003) with the profiles `security_control` and `trace`, as JSON on one line.

use std::io::{self, Write};

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::reason::Reason;
use serde_json::{Map, Value, json};

use super::line::{Decision, Line};
use super::severity::Severity;

/// The version of the schema. Its minor versions are compatible.
const VERSION: &str = "1.6.0";
/// `uid` of the class API Activity.
const CLASS: u32 = 6003;
/// What stands where the schema requires a name and the line has none.
const UNKNOWN: &str = "unknown";

/// Writes the event of a line, without a line feed.
pub(super) fn write(line: &Line, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(out, &event(line)).map_err(Into::into)
}

/// Returns the event of a line.
pub(super) fn event(line: &Line) -> Value {
    let Line {
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
        decision,
        reason,
        generation,
        duration_ms,
        suppressed,
        ..
    } = line;
    let millis = time.as_millisecond();
    let (activity, activity_name) = activity(*class);
    let (severity, severity_name) = Severity::of(line).ocsf();
    let Outcome { action, status, disposition } = Outcome::of(*decision);
    let reason = reason.map(Reason::as_str);
    // A person cleared something of the principal; nobody in the line acted.
    let acting = principal.as_ref().filter(|_| *decision != Decision::Cleared);
    let uid = principal_uid.as_ref().filter(|_| acting.is_some());
    let duration = duration_ms.map(whole);
    let operation = match decision {
        Decision::Cleared => Some("clear_breakers"),
        _ => tool.as_deref().or(method.as_deref()),
    };
    let mut resources = Vec::new();
    if acting.is_none() {
        resources.extend(principal.as_ref().map(|name| {
            object([("type", Some(json!("MCPPrincipal"))), ("name", Some(json!(name))), ("uid", value(principal_uid))])
        }));
    }
    resources.extend(tool.as_ref().map(|name| {
        object([("type", Some(json!("tool"))), ("name", Some(json!(name))), ("namespace", value(server))])
    }));
    let trace = trace_id.as_ref().map(|trace| {
        let began = millis.saturating_sub(duration.unwrap_or(0));
        let span = span_id.as_ref().map(|span| json!({"uid": span, "start_time": began, "end_time": millis}));
        object([("uid", Some(json!(trace))), ("span", span)])
    });
    let caller = object([("name", Some(json!(acting.map_or(UNKNOWN, String::as_str)))), ("uid", value(uid))]);
    let api = object([
        ("operation", Some(json!(operation.unwrap_or(UNKNOWN)))),
        ("service", server.as_ref().map(|name| json!({"name": name}))),
        ("request", call.as_ref().map(|call| json!({"uid": call}))),
        ("response", reason.map(|reason| json!({"error": reason}))),
    ]);
    let policy = json!({"name": tenant.as_deref().unwrap_or(UNKNOWN), "version": generation.to_string()});
    object([
        ("class_uid", Some(json!(CLASS))),
        ("class_name", Some(json!("API Activity"))),
        ("category_uid", Some(json!(6))),
        ("category_name", Some(json!("Application Activity"))),
        ("activity_id", Some(json!(activity))),
        ("activity_name", Some(json!(activity_name))),
        ("type_uid", Some(json!(CLASS * 100 + activity))),
        ("type_name", Some(json!(format!("API Activity: {activity_name}")))),
        ("severity_id", Some(json!(severity))),
        ("severity", Some(json!(severity_name))),
        ("time", Some(json!(millis))),
        ("duration", duration.map(|millis| json!(millis))),
        ("count", value(suppressed)),
        ("action_id", Some(json!(action.0))),
        ("action", Some(json!(action.1))),
        ("disposition_id", Some(json!(disposition.0))),
        ("disposition", Some(json!(disposition.1))),
        ("status_id", Some(json!(status.0))),
        ("status", Some(json!(status.1))),
        ("status_code", reason.map(|reason| json!(reason))),
        ("actor", Some(json!({"user": caller}))),
        ("src_endpoint", Some(caller.clone())),
        ("api", Some(api)),
        ("resources", Some(json!(resources)).filter(|_| !resources.is_empty())),
        ("policy", Some(policy)),
        ("trace", trace),
        ("metadata", Some(metadata(line))),
        ("unmapped", Some(unmapped(line))),
    ])
}

/// Returns what the line says about itself.
fn metadata(line: &Line) -> Value {
    let Line { audit, time, tenant, call, chain, sequence, .. } = line;
    let position = chain.as_ref().zip(*sequence).map(|(chain, sequence)| json!(format!("{chain}.{sequence}")));
    object([
        ("version", Some(json!(VERSION))),
        ("product", Some(json!({"name": "MCP Fleet", "vendor_name": "MCP Fleet", "feature": {"name": "gateway"}}))),
        ("profiles", Some(json!(["security_control", "trace"]))),
        ("log_name", Some(json!("audit"))),
        ("log_version", Some(json!(audit.to_string()))),
        ("original_time", Some(json!(time.to_string()))),
        ("tenant_uid", value(tenant)),
        ("correlation_uid", value(call)),
        ("uid", position),
        ("sequence", value(sequence)),
    ])
}

/// Returns what has no attribute in the class.
fn unmapped(line: &Line) -> Value {
    let Line { decision, class, method, looping, arguments, result, cost, duration_ms, chain, previous, .. } = line;
    object([
        ("decision", Some(json!(decision.as_str()))),
        ("class", class.map(|class| json!(class.as_str()))),
        ("method", value(method)),
        ("loop", looping.map(|kind| json!(Kind::as_str(kind)))),
        ("arguments", value(arguments)),
        ("result", value(result)),
        ("cost", value(cost)),
        ("durationMs", value(duration_ms)),
        ("chain", value(chain)),
        ("previous", value(previous)),
    ])
}

/// Returns `activity_id` and `activity_name`.
const fn activity(class: Option<Class>) -> (u32, &'static str) {
    match class {
        Some(Class::Read) => (2, "Read"),
        Some(Class::Write) => (3, "Update"),
        Some(Class::Destructive) => (4, "Delete"),
        None => (99, "Other"),
    }
}

/// The ids of OCSF for a decision, with their captions.
struct Outcome {
    action: (u8, &'static str),
    status: (u8, &'static str),
    disposition: (u8, &'static str),
}

impl Outcome {
    const fn of(decision: Decision) -> Self {
        let (allowed, denied) = ((1, "Allowed"), (2, "Denied"));
        let (open, success, failure) = ((0, "Unknown"), (1, "Success"), (2, "Failure"));
        match decision {
            Decision::Admitted => Self { action: allowed, status: open, disposition: (1, "Allowed") },
            Decision::Allowed => Self { action: allowed, status: success, disposition: (1, "Allowed") },
            Decision::Denied => Self { action: denied, status: failure, disposition: (2, "Blocked") },
            Decision::Failed => Self { action: allowed, status: failure, disposition: (27, "Error") },
            Decision::Cleared => Self { action: (99, "Other"), status: success, disposition: (21, "Reset") },
        }
    }
}

/// Returns an object with the members that have a value.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(members.collect::<Map<_, _>>())
}

/// Returns the value as JSON, if there is one.
fn value(value: impl serde::Serialize) -> Option<Value> {
    Some(json!(value)).filter(|value| !value.is_null())
}

/// Returns whole milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "a cast of a float is saturating")]
const fn whole(millis: f64) -> i64 {
    millis.round() as i64
}
