//! Makes text from servers safe to show: replaces characters that hide or reorder text or control a terminal.

use std::borrow::Cow;

/// Replaces unsafe characters with U+FFFD: control characters except line feed and tab (so also the escape of ANSI
/// sequences), bidirectional overrides and isolates, and characters that nobody sees but a model reads: tag characters, spaces
/// without width, fillers, and other characters that are ignorable by default (Unicode, `Default_Ignorable_Code_Point`). Joiners, marks
/// of direction and variation selectors stay where writing systems and emoji use them: one after a character that it can belong to.
/// Removes a carriage return before a line feed.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    if !text.contains(|character| is_unsafe(character) || is_attached(character)) {
        return Cow::Borrowed(text);
    }
    let lines = text.replace("\r\n", "\n");
    let mut before = '\n';
    let safe = lines.chars().map(|character| {
        let hides = is_unsafe(character) || is_attached(character) && !may_follow(before, character);
        before = character;
        if hides { '\u{fffd}' } else { character }
    });
    let safe: String = safe.collect();
    if safe == text { Cow::Borrowed(text) } else { Cow::Owned(safe) }
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
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character is unseen, and changes how the one before it looks.
const fn is_attached(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200c}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}')
}

/// Whether an unseen character does something after the one before it. Several in a row, or joiners between letters of ASCII, can only
/// hide something.
const fn may_follow(before: char, attached: char) -> bool {
    match attached {
        // Such as an emoji that is joined with the next one.
        '\u{200d}' if matches!(before, '\u{fe00}'..='\u{fe0f}') => true,
        '\u{200c}' | '\u{200d}' => !before.is_ascii() && !is_attached(before),
        _ => !is_attached(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_text_is_unchanged() {
        for text in [
            "a\tb\nc",
            "é 😀 ❤\u{fe0f} 漢字 שלום\u{200f}, C++\u{200e}",
            "👩\u{200d}💻",
            "❤\u{fe0f}\u{200d}🔥 1\u{fe0f}\u{20e3}",
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
        ] {
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
        assert_eq!(neutralise("no\u{200b}w\u{2060}h\u{feff}er\u{ad}e"), "no\u{fffd}w\u{fffd}h\u{fffd}er\u{fffd}e");
        // A bit a character.
        assert_eq!(neutralise("a\u{200c}b\u{200d}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(neutralise("é\u{200c}\u{200d}\u{200e}"), "é\u{200c}\u{fffd}\u{fffd}");
        assert_eq!(neutralise("❤\u{fe0f}\u{fe0e}\u{fe01}"), "❤\u{fe0f}\u{fffd}\u{fffd}");
        assert_eq!(neutralise("one\r\ntwo\rthree\u{85}"), "one\ntwo\u{fffd}three\u{fffd}");
    }
}
