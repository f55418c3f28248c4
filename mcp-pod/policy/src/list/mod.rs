//! Renders the answer to `tools/list`: the server's tools that a principal may call, with the gateway's schemas, by the
//! names that callers use.
//!
//! `title` and `description` are the catalogue's or else the server's own, which also says `outputSchema`,
//! `idempotentHint`, `openWorldHint` and the titles of annotations. Texts are neutralised and shortened. The gateway sets
//! `inputSchema` (catalogue ∩ grants, with texts of both) and, from the class of the tool, `readOnlyHint` and
//! `destructiveHint`. If the catalogue names a definition of the tool, the server's part is used only if it is that one.
//! Everything else is dropped (`icons`, `execution`, `_meta`, …). `x-mcp-header` is removed everywhere, because a server must not choose HTTP headers.

mod observed;

use std::borrow::Cow;

use crate::built_in::BuiltIn;
use crate::class::Class;
use crate::engine::ServerAccess;
use crate::json::write_str;
use crate::model::Tool;
use crate::text::neutralise;

use observed::Entry;
pub use observed::{Drift, ObservedTools, Pins, pins};

/// Longest instructions of a server, in characters. Longer ones are cut, like descriptions of tools.
pub const MAX_INSTRUCTIONS: usize = observed::MAX_DESCRIPTION;
/// Longest title, in characters. Longer ones are cut.
pub const MAX_TITLE: usize = crate::schema::MAX_TITLE;

/// Largest schema of the arguments of a tool that has the server's texts, in bytes. A larger one is written without them.
const MAX_DESCRIBED: usize = 256 << 10;
/// Memory for rendering one tool, in bytes, besides the list itself.
const WORK: usize = 4 * MAX_DESCRIBED;

/// Appends the JSON array of the tools that are both granted and observed, in the order of the catalogue, and then of the
/// built-in tools if the tenant has them. If nothing was observed yet, every granted tool is listed by its name alone.
/// Equal grants on the same server give equal bytes.
///
/// `reserve` is called with the bytes that are needed: before the first tool with those for rendering one, and then with the
/// length of each, before the next one is rendered. Its errors end the list.
pub fn render<E>(
    view: ServerAccess<'_>,
    observed: Option<&ObservedTools>,
    built_in_tools: bool,
    mut reserve: impl FnMut(usize) -> Result<(), E>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    reserve(WORK)?;
    out.push(b'[');
    let mut first = true;
    for access in view.tools() {
        let tool = access.tool();
        let Tool { name, shown, definition, .. } = tool;
        let entry = match observed {
            Some(observed) => observed.get(name, *definition),
            None => Some(Cow::Owned(Entry::unknown())),
        };
        let Some(entry) = entry else { continue };
        let before = out.len();
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write_str(tool.wire_name(), out);
        let shown = shown.as_deref();
        let title = shown.and_then(|shown| shown.title.as_deref()).or(entry.title.as_deref());
        let description = shown.and_then(|shown| shown.description.as_deref()).or(entry.description.as_deref());
        for (key, text) in [("title", title), ("description", description)] {
            if let Some(text) = text {
                out.push(b',');
                write_str(key, out);
                out.push(b':');
                write_str(&neutralise(text), out);
            }
        }
        out.extend_from_slice(b",\"inputSchema\":");
        let described = Some(access.input_schema(Some(&entry.arguments()))).filter(|text| text.len() <= MAX_DESCRIBED);
        out.extend_from_slice(&described.unwrap_or_else(|| access.input_schema(None)));
        out.extend_from_slice(&entry.tail);
        out.extend_from_slice(match access.class() {
            Class::Read => b"\"readOnlyHint\":true,\"destructiveHint\":false}}".as_slice(),
            Class::Write => b"\"readOnlyHint\":false,\"destructiveHint\":false}}",
            Class::Destructive => b"\"readOnlyHint\":false,\"destructiveHint\":true}}",
        });
        reserve(out.len() - before)?;
    }
    for tool in BuiltIn::ALL.into_iter().filter(|_| built_in_tools) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        tool.render(out);
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests;
