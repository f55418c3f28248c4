//! Replays a trace through the detector.
//!
//! The agent of a trace obeys nothing: it makes each call at the recorded time, also after a refusal. A refused call is
//! not made, so its recorded result is not seen. A call ends halfway to the next one, and at the latest half a second
//! after it began.

use std::time::Duration;

use mcp_fleet_policy::json::{Limits, parse};
use mcp_fleet_policy::loops::{Kind, LoopSettings, Loops, Polls, Settled};
use mcp_fleet_policy::tick::Tick;
use serde_json::{Value, json};

use super::trace::{Call, Label, Trace};

const LONGEST_CALL: u64 = 500;

/// What the detector did with a trace.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Indices of the calls that were refused, and why.
    pub refused: Vec<(usize, Kind)>,
    /// Indices of the calls whose callers were warned.
    pub warned: Vec<usize>,
}

/// Replays a trace through a new detector with the default settings.
pub fn replay(trace: &Trace) -> Replayed {
    let (loops, settings) = (Loops::new(), LoopSettings::DEFAULT);
    let mut replayed = Replayed::default();
    for (index, call) in trace.calls.iter().enumerate() {
        let principal = call.principal.as_deref().unwrap_or("agent");
        let server = call.server.as_deref().unwrap_or("server");
        let arguments = call.args.to_string();
        let parsed = parse(arguments.as_bytes(), &Limits::RESULT).ok();
        let key = loops.key(server, &call.tool, parsed.as_ref());
        let admitted = millis(call.at_ms);
        if let Err(evidence) = loops.check(admitted, principal, settings.mode, key) {
            replayed.refused.push((index, evidence.kind));
            continue;
        }
        let next = trace.calls.get(index + 1).map_or(u64::MAX, |next| next.at_ms);
        let settled = millis(call.at_ms + ((next - call.at_ms) / 2).min(LONGEST_CALL));
        let result = loops.fingerprint(result(call).as_bytes(), arguments.as_bytes(), call.is_error);
        let call = Settled { key, result, admitted, changes: changes(call), polls: Polls::Limited };
        if loops.settle(settled, principal, &settings, &call).is_some() {
            replayed.warned.push(index);
        }
    }
    replayed
}

fn millis(millis: u64) -> Tick {
    Tick::ZERO.plus(Duration::from_millis(millis))
}

/// Returns the result as a server would write it.
fn result(call: &Call) -> String {
    let text = match &call.result {
        Value::String(text) => text.clone(),
        Value::Object(result) if result.contains_key("content") => return call.result.to_string(),
        other => other.to_string(),
    };
    json!({"content": [{"type": "text", "text": text}], "isError": call.is_error}).to_string()
}

/// Returns whether the tool may change something. A trace has no catalogue that names its class, so the name decides:
/// a tool reads if one of its words is a verb for reading.
fn changes(call: &Call) -> bool {
    const READ: &[&str] = &[
        "get",
        "list",
        "read",
        "search",
        "find",
        "fetch",
        "query",
        "describe",
        "status",
        "show",
        "view",
        "snapshot",
        "screenshot",
        "log",
        "logs",
        "diff",
        "lookup",
        "check",
        "count",
        "inspect",
        "tree",
        "info",
        "poll",
        "watch",
        "retrieve",
        "browse",
        "test",
        "tests",
        "lint",
        "grep",
        "cat",
        "ls",
        "head",
        "tail",
        "history",
        "explain",
        "select",
        "stat",
        "directory",
        "glob",
        "download",
        "scrape",
        "extract",
        "wait",
        "calculate",
        "compute",
    ];
    const WRITE: &[&str] = &[
        "write", "edit", "create", "update", "delete", "remove", "set", "add", "move", "send", "post", "put", "patch",
        "insert", "apply", "commit", "push", "merge", "replace", "click", "type", "fill",
    ];
    if let Some(class) = &call.class {
        return class != "Read";
    }
    let mut words = Vec::new();
    for part in call.tool.split(|character: char| !character.is_ascii_alphanumeric()) {
        let mut word = String::new();
        for character in part.chars() {
            if character.is_ascii_uppercase() && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            word.push(character.to_ascii_lowercase());
        }
        words.push(word);
    }
    let is = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    is(WRITE) || !is(READ)
}

impl Replayed {
    /// Returns one line about the trace.
    pub fn line(&self, trace: &Trace) -> String {
        let first = match self.refused.first() {
            None => "-".to_owned(),
            Some((index, kind)) => format!("{index} {kind:?}"),
        };
        let (label, from) = match trace.head.label {
            Label::Loop => ("loop", trace.head.loop_from.map_or_else(String::new, |from| from.to_string())),
            Label::Work => ("work", String::new()),
        };
        let right = match trace.head.label {
            Label::Loop => self.refused.first().is_some_and(|(index, _)| *index >= trace.honest()),
            Label::Work => self.refused.is_empty(),
        };
        let mark = if right { " " } else { "!" };
        let name = &trace.head.name;
        format!("{mark} {label} {name:44} calls {:4}  from {from:4} first refusal {first}", trace.calls.len())
    }
}
