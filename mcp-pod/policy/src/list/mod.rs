//! Renders the answer to `tools/list`: the server's tools that a principal may call, with the gateway's schemas.
//!
//! From the server's own entry come `name`, `title`, `description` and the titles of annotations (neutralised),
//! `outputSchema`, `idempotentHint` and `openWorldHint`. The gateway sets `inputSchema` (catalogue ∩ grants) and, from
//! the class of the tool, `readOnlyHint` and `destructiveHint`. Everything else is dropped (`icons`, `execution`,
//! `_meta`, …). `x-mcp-header` is removed everywhere, because a server must not choose HTTP headers.

mod observed;

use std::borrow::Cow;

use crate::built_in::BuiltIn;
use crate::class::Class;
use crate::engine::ServerAccess;

use observed::Entry;
pub use observed::ObservedTools;

/// Appends the JSON array of the tools that are both granted and observed, in the order of the catalogue, and then of the
/// built-in tools if the tenant has them. If nothing was observed yet, every granted tool is listed by its name alone. Equal grants on the same server give equal bytes.
pub fn render(view: ServerAccess<'_>, observed: Option<&ObservedTools>, built_in_tools: bool, out: &mut Vec<u8>) {
    out.push(b'[');
    let mut first = true;
    for access in view.tools() {
        let name = &access.tool().name;
        let entry = match observed {
            Some(observed) => observed.get(name).map(Cow::Borrowed),
            None => Some(Cow::Owned(Entry::of_catalogue(name))),
        };
        let Some(entry) = entry else { continue };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(&entry.head);
        out.extend_from_slice(b",\"inputSchema\":");
        out.extend_from_slice(&access.input_schema());
        out.extend_from_slice(&entry.tail);
        out.extend_from_slice(match access.class() {
            Class::Read => b"\"readOnlyHint\":true,\"destructiveHint\":false}}".as_slice(),
            Class::Write => b"\"readOnlyHint\":false,\"destructiveHint\":false}}",
            Class::Destructive => b"\"readOnlyHint\":false,\"destructiveHint\":true}}",
        });
    }
    for tool in BuiltIn::ALL.into_iter().filter(|_| built_in_tools) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        tool.render(out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
