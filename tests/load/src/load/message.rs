//! The messages of a call and of its answer.

use super::{LARGE, SMALL};

/// Path of the server at the gateway. The upstream uses the same one for direct calls.
pub(crate) const PATH: &str = "/echo/mcp";

/// Returns a `tools/call` with `size` bytes of text.
pub(crate) fn call(size: usize) -> String {
    let text = text(size);
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}","mode":"plain","count":7}}}}}}"#
    )
}

/// Part of a call that the tool server never answers.
pub(crate) const SILENT: &[u8] = br#""mode":"silent""#;

/// Returns a `tools/call` that the tool server never answers.
pub(crate) fn silent_call() -> String {
    call(SMALL).replace(r#""mode":"plain""#, r#""mode":"silent""#)
}

/// Returns the result of the call, with `size` bytes of text.
pub(crate) fn result(size: usize) -> String {
    format!(r#"{{"content":[{{"type":"text","text":"{}"}}],"isError":false}}"#, text(size))
}

/// Returns the `initialize` request that opens a session.
pub(crate) fn initialize() -> String {
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#.to_owned()
}

/// Returns the notification that must follow `initialize`.
pub(crate) fn initialized() -> String {
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()
}

/// Returns prose as tools return it, with some characters that JSON escapes and some outside ASCII.
fn text(size: usize) -> String {
    const LINE: &str = "The quick brown fox jumps over the lazy dog, \\\"twice\\\" a day \u{2014} or so it says.\\n";
    let mut text = LINE.repeat(LARGE / LINE.len() + 1);
    let mut end = size;
    // Do not cut through an escape or a character. The padding below makes up for the difference.
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

    #[test]
    fn calls_and_results_are_json_of_the_requested_size() {
        for size in [SMALL, LARGE] {
            for text in [call(size), result(size)] {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert!(value.is_object());
                assert!((size..size + 200).contains(&text.len()), "{} bytes for {size}", text.len());
            }
        }
    }
}
