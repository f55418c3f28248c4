//! The bytes of a call and of its answer.

use super::LARGE;

/// The server's path at the gateway; the upstream answers on the same one.
pub(crate) const PATH: &str = "/echo/mcp";

/// A `tools/call` with that much text.
pub(crate) fn call(size: usize) -> String {
    let text = text(size);
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}","mode":"plain","count":7}}}}}}"#
    )
}

/// Its result with that much text.
pub(crate) fn result(size: usize) -> String {
    format!(r#"{{"content":[{{"type":"text","text":"{}"}}],"isError":false}}"#, text(size))
}

/// The `initialize` that opens a session.
pub(crate) fn initialize() -> String {
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#.to_owned()
}

/// What follows it.
pub(crate) fn initialized() -> String {
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()
}

/// Prose with the characters that JSON escapes every so often, and some beyond ASCII, as tools return it.
fn text(size: usize) -> String {
    const LINE: &str = "The quick brown fox jumps over the lazy dog, \\\"twice\\\" a day \u{2014} or so it says.\\n";
    let mut text = LINE.repeat(LARGE / LINE.len() + 1);
    let mut end = size;
    // Not through an escape or a character; what is cut off is made up for below.
    while !text.is_char_boundary(end) || text[..end].ends_with('\\') {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(&"x".repeat(size - end));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::SMALL;

    #[test]
    fn calls_and_results_are_json_of_the_size_that_was_asked_for() {
        for size in [SMALL, LARGE] {
            for text in [call(size), result(size)] {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert!(value.is_object());
                assert!((size..size + 200).contains(&text.len()), "{} bytes for {size}", text.len());
            }
        }
    }
}
