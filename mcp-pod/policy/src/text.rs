//! Makes text from servers safe to show: replaces characters that hide or reorder text or control a terminal.

use std::borrow::Cow;

/// Replaces unsafe characters with U+FFFD: control characters except line feed and tab (so also the escape of ANSI
/// sequences), bidirectional overrides and isolates, tag characters, and the variation selectors that can carry hidden
/// bytes. Removes a carriage return before a line feed.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let text = text.replace("\r\n", "\n");
    Cow::Owned(text.replace(is_unsafe, "\u{fffd}"))
}

/// Makes a text safe to show, and cuts it after `max` characters (Unicode scalar values), the last of which then is `…`.
pub fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    let text = neutralise(text);
    // A text has at least as many bytes as characters.
    if text.len() <= max || text.chars().nth(max).is_none() {
        return text;
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    Cow::Owned(cut)
}

const fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_text_is_unchanged() {
        for text in ["a\tb\nc", "é 😀 ❤\u{fe0f} 漢字 שלום\u{200f}", "👩\u{200d}💻"] {
            assert!(matches!(neutralise(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(shortened("ééé", 3), "ééé");
        assert_eq!(shortened("éééé", 3), "éé…");
        assert_eq!(shortened("\u{1b}bcd", 3), "\u{fffd}b…");
    }

    #[test]
    fn hidden_and_control_characters_are_replaced() {
        assert_eq!(neutralise("\u{1b}[31mred"), "\u{fffd}[31mred");
        assert_eq!(neutralise("a\u{202e}b\u{2066}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(neutralise("x\u{e0041}\u{e0042}\u{e0100}"), "x\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(neutralise("one\r\ntwo\rthree\u{85}"), "one\ntwo\u{fffd}three\u{fffd}");
    }
}
