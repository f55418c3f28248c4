//! The tools that a server reports, parsed once per report.

use foldhash::HashMap;

use crate::json::{Limits, Members, Value, parse, write, write_str};
use crate::text::neutralise;

/// Schema extension with which a server requests arguments as HTTP headers.
const HEADER_KEYWORD: &str = "x-mcp-header";

/// Limits for the definition of one tool. A server can change its tools at any time, so parsing them must not take much
/// memory: 8 MiB with these.
const TOOL: Limits = Limits { nodes: 32_768, ..Limits::RESULT };

/// The tools that a server reports, reduced to what callers may see.
#[derive(Clone, Debug, Default)]
pub struct ObservedTools {
    entries: HashMap<String, Entry>,
    rejected: usize,
}

/// One tool, rendered as the parts before and after its input schema.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `{"name":…,"title":…,"description":…`.
    pub(super) head: Vec<u8>,
    /// `,"outputSchema":…,"annotations":{…,`.
    pub(super) tail: Vec<u8>,
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
                    observed.entries.insert(name.to_owned(), Entry::new(name, tool));
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

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }
}

impl Entry {
    /// Returns the entry of a tool of which only the name is known.
    pub(super) fn of_catalogue(name: &str) -> Self {
        Self::new(name, &Value::Object(Members::new()))
    }

    fn new(name: &str, tool: &Value<'_>) -> Self {
        let mut head = b"{\"name\":".to_vec();
        write_str(name, &mut head);
        for field in ["title", "description"] {
            if let Some(text) = tool.get(field).and_then(Value::as_str) {
                key(field, &mut head);
                write_str(&neutralise(text), &mut head);
            }
        }
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
        Self { head, tail }
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
