//! The tools that a server said it has, read once per report.

use foldhash::HashMap;

use crate::json::{Limits, Members, Value, parse, write, write_str};
use crate::text::neutralise;

/// Extension that lets a server ask for arguments as HTTP headers.
const HEADER: &str = "x-mcp-header";

/// What of a server's tools is shown.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    entries: HashMap<String, Entry>,
    rejected: usize,
}

/// One tool, written up to and from where its schema goes.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `{"name":…,"title":…,"description":…`.
    pub(super) head: Vec<u8>,
    /// `,"outputSchema":…,"annotations":{…,`.
    pub(super) tail: Vec<u8>,
}

impl Observed {
    /// Reads the entries of a server's own `tools/list`, each as JSON text. What is not a tool, or one of a name that
    /// was there before, is left out.
    pub fn new<'r>(entries: impl IntoIterator<Item = &'r str>) -> Self {
        let mut observed = Self::default();
        for text in entries {
            let tool = parse(text.as_bytes(), &Limits::RESULT);
            match tool.ok().as_ref().and_then(|tool| Some((tool.get("name")?.as_str()?, tool))) {
                Some((name, tool)) if !name.is_empty() && !observed.entries.contains_key(name) => {
                    observed.entries.insert(name.to_owned(), Entry::new(name, tool));
                }
                _ => observed.rejected += 1,
            }
        }
        observed
    }

    /// How many entries were left out because they could not be read.
    pub const fn rejected(&self) -> usize {
        self.rejected
    }

    /// The names of the tools, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }
}

impl Entry {
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

/// The schema of results, if it is one that every revision takes: of an object, and complete in itself. A schema
/// that sends its reader to the network is dropped; results need none.
fn output_schema<'a>(schema: &Value<'a>) -> Option<Value<'a>> {
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    (is_object && !refers_elsewhere(schema)).then(|| stripped(schema))
}

fn refers_elsewhere(schema: &Value<'_>) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(refers_elsewhere),
        Value::Object(members) => members.iter().any(|(key, value)| {
            let reference = matches!(key.as_ref(), "$ref" | "$dynamicRef" | "$recursiveRef");
            reference && value.as_str().is_some_and(|target| !target.starts_with('#')) || refers_elsewhere(value)
        }),
        _ => false,
    }
}

/// Without what asks for headers, and with texts neutralised.
fn stripped<'a>(schema: &Value<'a>) -> Value<'a> {
    match schema {
        Value::Array(items) => Value::Array(items.iter().map(stripped).collect()),
        Value::Object(members) => {
            let kept = members.iter().filter(|(key, _)| key != HEADER);
            let kept: Members<'a> = kept
                .map(|(key, value)| match value {
                    Value::String(text) if matches!(key.as_ref(), "title" | "description") => {
                        (key.clone(), Value::String(neutralise(text).into_owned().into()))
                    }
                    value => (key.clone(), stripped(value)),
                })
                .collect();
            Value::Object(kept)
        }
        other => other.clone(),
    }
}
