//! The tools that a server reports, parsed once per report.

use std::borrow::Cow;

use foldhash::HashMap;
use sha2::{Digest as _, Sha256};

use crate::json::{Limits, Members, Value, parse, write, write_str};
use crate::model::{DefinitionDigest, Server};
use crate::schema::{Annotations, MAX_TITLE, Room};
use crate::text::{neutralise, shortened};

/// Schema extension with which a server requests arguments as HTTP headers.
const HEADER_KEYWORD: &str = "x-mcp-header";

/// Limits for the definition of one tool. A server can change its tools at any time, so parsing them must not take much
/// memory: 8 MiB with these.
const TOOL: Limits = Limits { nodes: 32_768, ..Limits::RESULT };

/// Longest description of a tool, in characters. Longer ones are cut.
const MAX_DESCRIPTION: usize = 8192;

/// The tools that a server reports, reduced to what callers may see.
#[derive(Clone, Debug, Default)]
pub struct ObservedTools {
    entries: HashMap<String, Entry>,
    rejected: usize,
}

/// What a server says about one tool.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    /// About its arguments.
    pub(super) arguments: Annotations,
    /// `,"outputSchema":…,"annotations":{…,`.
    pub(super) tail: Vec<u8>,
    /// Of the whole definition.
    pub(super) digest: DefinitionDigest,
}

/// A tool whose definition is not the one that its catalogue names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Name of the tool.
    pub tool: String,
    /// The definition that the catalogue names.
    pub expected: DefinitionDigest,
    /// The definition that the server lists.
    pub found: DefinitionDigest,
}

/// The definitions that a catalogue names, by tool.
pub type Pins = HashMap<String, DefinitionDigest>;

/// Returns the definitions that the catalogue of a server names.
pub fn pins(server: &Server) -> Pins {
    server.tools.iter().filter_map(|tool| Some((tool.name.clone(), tool.definition?))).collect()
}

impl ObservedTools {
    /// Parses the entries of the server's own `tools/list`, each as JSON text. Skips and counts entries that are not a
    /// tool or repeat a name.
    pub fn new<'r>(entries: impl IntoIterator<Item = &'r str>) -> Self {
        let (mut observed, mut room) = (Self::default(), Room::of_server());
        for text in entries {
            let tool = parse(text.as_bytes(), &TOOL);
            match tool.ok().as_ref().and_then(|tool| Some((tool.get("name")?.as_str()?, tool))) {
                Some((name, tool)) if !name.is_empty() && !observed.entries.contains_key(name) => {
                    observed.entries.insert(name.to_owned(), Entry::new(tool, &mut room));
                }
                _ => observed.rejected += 1,
            }
        }
        observed
    }

    /// Returns the number of skipped entries.
    pub const fn rejected(&self) -> usize {
        self.rejected
    }

    /// Returns the names of the tools, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Returns the tools whose definitions are not the ones that the catalogue names, sorted by name.
    pub fn drift(&self, pins: &Pins) -> Vec<Drift> {
        let drift = pins.iter().filter_map(|(tool, expected)| {
            let found = self.entries.get(tool)?.digest;
            (found != *expected).then(|| Drift { tool: tool.clone(), expected: *expected, found })
        });
        let mut drift: Vec<Drift> = drift.collect();
        drift.sort_by(|one, other| one.tool.cmp(&other.tool));
        drift
    }

    /// Takes from another report the definitions that the catalogue names and this one no longer has. So a server that
    /// changes its definitions does not change what agents see.
    pub fn keep(&mut self, other: &Self, pins: &Pins) {
        for Drift { tool, expected, .. } in self.drift(pins) {
            if let Some(kept) = other.entries.get(&tool).filter(|entry| entry.digest == expected) {
                self.entries.insert(tool, kept.clone());
            }
        }
    }

    /// Returns what the server says about a tool. Nothing but its name, if the catalogue names another definition.
    pub(super) fn get(&self, name: &str, definition: Option<DefinitionDigest>) -> Option<Cow<'_, Entry>> {
        let entry = self.entries.get(name)?;
        let is_pinned = definition.is_none_or(|definition| definition == entry.digest);
        Some(if is_pinned { Cow::Borrowed(entry) } else { Cow::Owned(Entry::unknown()) })
    }
}

impl Entry {
    /// Returns the entry of a tool of which only the name is known.
    pub(super) fn unknown() -> Self {
        Self::new(&Value::Object(Members::new()), &mut Room::of_server())
    }

    fn new(tool: &Value<'_>, room: &mut Room) -> Self {
        let text = |name: &str, max| Some(shortened(tool.get(name)?.as_str()?, max).into_owned());
        let mut tail = Vec::new();
        if let Some(schema) = tool.get("outputSchema").and_then(output_schema) {
            key("outputSchema", &mut tail);
            write(&schema, &mut tail);
        }
        tail.extend_from_slice(b",\"annotations\":{");
        if let Some(annotations) = tool.get("annotations") {
            if let Some(title) = annotations.get("title").and_then(Value::as_str) {
                tail.extend_from_slice(b"\"title\":");
                write_str(&neutralise(title), &mut tail);
                tail.push(b',');
            }
            for hint in ["idempotentHint", "openWorldHint"] {
                if let Some(truth) = annotations.get(hint).and_then(Value::as_bool) {
                    write_str(hint, &mut tail);
                    tail.extend_from_slice(if truth { b":true," } else { b":false," });
                }
            }
        }
        Self {
            title: text("title", MAX_TITLE),
            description: text("description", MAX_DESCRIPTION),
            arguments: tool.get("inputSchema").map(|schema| Annotations::of(schema, room)).unwrap_or_default(),
            tail,
            digest: digest(tool),
        }
    }
}

/// Returns the digest of a definition: of its compact form with members sorted by name, as `jq -cjS` writes it.
fn digest(tool: &Value<'_>) -> DefinitionDigest {
    let mut text = Vec::new();
    write(&sorted(tool), &mut text);
    DefinitionDigest(Sha256::digest(&text).into())
}

fn sorted<'a>(value: &Value<'a>) -> Value<'a> {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(members) => {
            let mut members: Members<'a> = members.iter().map(|(name, item)| (name.clone(), sorted(item))).collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(members)
        }
        other => other.clone(),
    }
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    write_str(name, out);
    out.push(b':');
}

/// Returns the output schema if every protocol revision accepts it: it describes an object and is self-contained. A
/// schema that refers its reader to the network is dropped; a result does not need one.
fn output_schema<'a>(schema: &Value<'a>) -> Option<Value<'a>> {
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    (is_object && !has_external_reference(schema)).then(|| sanitised(schema))
}

fn has_external_reference(schema: &Value<'_>) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(has_external_reference),
        Value::Object(members) => members.iter().any(|(key, value)| {
            let reference = matches!(key.as_ref(), "$ref" | "$dynamicRef" | "$recursiveRef");
            reference && value.as_str().is_some_and(|target| !target.starts_with('#')) || has_external_reference(value)
        }),
        _ => false,
    }
}

/// Copies the schema without header requests and with neutralised texts.
fn sanitised<'a>(schema: &Value<'a>) -> Value<'a> {
    match schema {
        Value::Array(items) => Value::Array(items.iter().map(sanitised).collect()),
        Value::Object(members) => {
            let members = members.iter().filter(|(key, _)| key != HEADER_KEYWORD);
            let members: Members<'a> = members
                .map(|(key, value)| match value {
                    Value::String(text) if matches!(key.as_ref(), "title" | "description") => {
                        (key.clone(), Value::String(neutralise(text).into_owned().into()))
                    }
                    value => (key.clone(), sanitised(value)),
                })
                .collect();
            Value::Object(members)
        }
        other => other.clone(),
    }
}
