//! The tools that a server reports, parsed once per report.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::HashMap;
use sha2::{Digest as _, Sha256};

use crate::json::{Limits, Members, Value, parse, write, write_canonical, write_str};
use crate::model::{DefinitionDigest, Server};
use crate::schema::{Annotations, MAX_TITLE};
use crate::text::{neutralise, shortened};

/// Schema extension with which a server requests arguments as HTTP headers.
const HEADER_KEYWORD: &str = "x-mcp-header";

/// Limits for the definition of one tool. A server can change its tools at any time, so parsing them must not take much
/// memory: 8 MiB with these.
const TOOL: Limits = Limits { nodes: 32_768, ..Limits::RESULT };

/// Longest description of a tool, in characters. Longer ones are cut.
pub(super) const MAX_DESCRIPTION: usize = 8192;

/// Largest output schema, in bytes. Larger ones are left out.
const MAX_OUTPUT_SCHEMA: usize = 64 << 10;

/// The tools that a server reports, reduced to what callers may see.
#[derive(Clone, Debug, Default)]
pub struct ObservedTools {
    entries: HashMap<String, Entry>,
    /// Entries of an earlier report with the definitions that the catalogue names, where this report has another one or none.
    kept: HashMap<String, Entry>,
    rejected: usize,
}

/// What a server says about one tool.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    /// `inputSchema` as JSON; empty if there is none. What it says about arguments is read when the tool is listed, so only
    /// for tools of the catalogue.
    input_schema: Arc<[u8]>,
    /// `,"outputSchema":…,"annotations":{…,`.
    pub(super) tail: Vec<u8>,
    /// Of the whole definition.
    pub(super) digest: DefinitionDigest,
}

/// A tool whose definition is not the one that its catalogue names, or that its server does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Name of the tool.
    pub tool: String,
    /// The definition that the catalogue names.
    pub expected: DefinitionDigest,
    /// The definition that the server lists; absent if it does not list the tool.
    pub found: Option<DefinitionDigest>,
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
        let mut observed = Self::default();
        for text in entries {
            let tool = parse(text.as_bytes(), &TOOL);
            match tool.ok().as_ref().and_then(|tool| Some((tool.get("name")?.as_str()?, tool))) {
                Some((name, tool)) if !name.is_empty() && !observed.entries.contains_key(name) => {
                    observed.entries.insert(name.to_owned(), Entry::new(tool));
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

    /// Returns the tools of which the definition that the catalogue names is not known, sorted by name.
    pub fn drift(&self, pins: &Pins) -> Vec<Drift> {
        let drift = pins.iter().filter_map(|(tool, expected)| {
            let found = self.entries.get(tool).map(|entry| entry.digest);
            let known = self.with_definition(tool, *expected).is_some();
            (!known).then(|| Drift { tool: tool.clone(), expected: *expected, found })
        });
        let mut drift: Vec<Drift> = drift.collect();
        drift.sort_by(|one, other| one.tool.cmp(&other.tool));
        drift
    }

    /// Takes from another report the definitions that the catalogue names and this one does not have. So a server that
    /// changes its definitions, or leaves out a tool for a while, does not change what agents see.
    pub fn keep(&mut self, other: &Self, pins: &Pins) {
        for Drift { tool, expected, .. } in self.drift(pins) {
            if let Some(kept) = other.with_definition(&tool, expected) {
                self.kept.insert(tool, kept.clone());
            }
        }
    }

    /// Returns what the server says about a tool that it lists. If the catalogue names a definition, only from that one, and
    /// nothing but the name if it is not known.
    pub(super) fn get(&self, name: &str, definition: Option<DefinitionDigest>) -> Option<Cow<'_, Entry>> {
        let entry = self.entries.get(name)?;
        let Some(definition) = definition else { return Some(Cow::Borrowed(entry)) };
        Some(self.with_definition(name, definition).map_or_else(|| Cow::Owned(Entry::unknown()), Cow::Borrowed))
    }

    fn with_definition(&self, name: &str, definition: DefinitionDigest) -> Option<&Entry> {
        let known = [&self.entries, &self.kept].into_iter().filter_map(|entries| entries.get(name));
        known.into_iter().find(|entry| entry.digest == definition)
    }
}

impl Entry {
    /// Returns the entry of a tool of which only the name is known.
    pub(super) fn unknown() -> Self {
        Self::new(&Value::Object(Members::new()))
    }

    /// Returns what the server says about the arguments.
    pub(super) fn arguments(&self) -> Annotations {
        parse(&self.input_schema, &TOOL).map_or_else(|_| Annotations::default(), |schema| Annotations::of(&schema))
    }

    fn new(tool: &Value<'_>) -> Self {
        let text = |name: &str, max| Some(shortened(tool.get(name)?.as_str()?, max).into_owned());
        let mut tail = Vec::new();
        if let Some(schema) = tool.get("outputSchema").and_then(output_schema) {
            key("outputSchema", &mut tail);
            tail.extend_from_slice(&schema);
        }
        tail.extend_from_slice(b",\"annotations\":{");
        if let Some(annotations) = tool.get("annotations") {
            if let Some(title) = annotations.get("title").and_then(Value::as_str) {
                tail.extend_from_slice(b"\"title\":");
                write_str(&shortened(title, MAX_TITLE), &mut tail);
                tail.push(b',');
            }
            for hint in ["idempotentHint", "openWorldHint"] {
                if let Some(truth) = annotations.get(hint).and_then(Value::as_bool) {
                    write_str(hint, &mut tail);
                    tail.extend_from_slice(if truth { b":true," } else { b":false," });
                }
            }
        }
        let mut input_schema = Vec::new();
        if let Some(schema) = tool.get("inputSchema") {
            write(schema, &mut input_schema);
        }
        Self {
            title: text("title", MAX_TITLE),
            description: text("description", MAX_DESCRIPTION),
            input_schema: input_schema.into(),
            tail,
            digest: digest(tool),
        }
    }
}

/// Returns the digest of a definition: of its canonical form (RFC 8785).
fn digest(tool: &Value<'_>) -> DefinitionDigest {
    let mut text = Vec::new();
    write_canonical(tool, &mut text);
    DefinitionDigest(Sha256::digest(&text).into())
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    write_str(name, out);
    out.push(b':');
}

/// Returns the output schema as JSON if every protocol revision accepts it: it describes an object and is self-contained. A
/// schema that refers its reader to the network, is large or has unsafe characters is dropped; a result does not need one.
fn output_schema(schema: &Value<'_>) -> Option<Vec<u8>> {
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    if !is_object || has_external_reference(schema) {
        return None;
    }
    let mut text = Vec::new();
    write(&sanitised(schema)?, &mut text);
    (text.len() <= MAX_OUTPUT_SCHEMA).then_some(text)
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

/// Copies the schema without header requests and with neutralised titles and descriptions. `None` if another text or a name
/// has unsafe characters: replaced, it would mean something else.
fn sanitised<'a>(schema: &Value<'a>) -> Option<Value<'a>> {
    let is_safe = |text: &str| neutralise(text) == text;
    Some(match schema {
        Value::String(text) if !is_safe(text) => return None,
        Value::Array(items) => Value::Array(items.iter().map(sanitised).collect::<Option<_>>()?),
        Value::Object(members) => {
            let members = members.iter().filter(|(key, _)| key != HEADER_KEYWORD).map(|(key, value)| {
                let value = match value {
                    Value::String(text) if matches!(key.as_ref(), "title" | "description") => {
                        Value::String(neutralise(text).into_owned().into())
                    }
                    value => sanitised(value)?,
                };
                is_safe(key).then(|| (key.clone(), value))
            });
            Value::Object(members.collect::<Option<_>>()?)
        }
        other => other.clone(),
    })
}
