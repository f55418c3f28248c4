//! Makes text from servers safe to show: replaces characters that hide or reorder text or control a terminal.

use std::borrow::Cow;

/// Makes a text show all that a model reads of it.
///
/// - Replaced with U+FFFD: control characters except line feed and tab (so also the escape of ANSI sequences), bidirectional
///   overrides and isolates, tag characters, fillers, and other characters that are ignorable by default (Unicode,
///   `Default_Ignorable_Code_Point`).
/// - Removed: spaces without width, soft hyphens and the like, which only say where a line may end; a carriage return before a line feed.
/// - Kept where a writing system or an emoji uses them, one at a time: joiners, marks of direction and variation selectors.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    let is_suspect = |character| is_unsafe(character) || is_about_lines(character) || is_attached(character);
    if !text.contains(is_suspect) {
        return Cow::Borrowed(text);
    }
    let lines = text.replace("\r\n", "\n");
    let mut safe = String::with_capacity(lines.len());
    let mut before = '\n';
    let mut characters = lines.chars().filter(|character| !is_about_lines(*character)).peekable();
    while let Some(character) = characters.next() {
        let after = characters.peek().copied().unwrap_or('\n');
        let hides = is_unsafe(character) || is_attached(character) && !is_used(before, character, after);
        safe.push(if hides { '\u{fffd}' } else { character });
        before = character;
    }
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
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{34f}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{202a}'..='\u{202e}' | '\u{2061}'..='\u{206f}' | '\u{3164}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether an unseen character only says where a line may end or not, or in what order the bytes of a file are.
const fn is_about_lines(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}')
}

/// Whether a character is unseen, and changes how those beside it look.
const fn is_attached(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200c}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}')
}

/// Whether an unseen character can change how those beside it look. Several in a row, or one among letters of ASCII, can only hide
/// something.
const fn is_used(before: char, attached: char, after: char) -> bool {
    const fn is_of_a_script(character: char) -> bool {
        !character.is_ascii() && !is_attached(character)
    }
    match attached {
        // Such as an emoji that is joined with the next one.
        '\u{200d}' if matches!(before, '\u{fe0f}') => is_of_a_script(after),
        _ if is_attached(before) => false,
        // Also between a Latin word and its Persian ending.
        '\u{200c}' | '\u{200d}' => is_of_a_script(before) || is_of_a_script(after),
        '\u{180b}'..='\u{180f}' => matches!(before, '\u{1820}'..='\u{18aa}'),
        // As text, or as an emoji: also digits are.
        '\u{fe0e}' | '\u{fe0f}' => !before.is_ascii() || matches!(before, '0'..='9' | '#' | '*'),
        '\u{fe00}'..='\u{fe02}' => !before.is_ascii(),
        // No standard sequence has them.
        '\u{fe03}'..='\u{fe0d}' => false,
        // Such as after the last sign of `C++` among words that are written from right to left.
        _ => !before.is_ascii_alphanumeric() || is_of_a_script(after),
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
            "API\u{200c}ها",
            "ᠮᠣᠩᠭᠣᠯ\u{180b}",
            "\u{304b}\u{fe00}",
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
        assert_eq!(neutralise("\u{feff}no\u{200b}w\u{2060}her\u{ad}e"), "nowhere");
        // A bit or more with each letter.
        assert_eq!(neutralise("a\u{200c}b\u{200d}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(neutralise("a\u{fe01}b\u{fe0f}\u{200d}c\u{200e}d"), "a\u{fffd}b\u{fffd}\u{fffd}c\u{fffd}d");
        assert_eq!(neutralise("é\u{200c}\u{200d}\u{200e}"), "é\u{200c}\u{fffd}\u{fffd}");
        assert_eq!(neutralise("❤\u{fe0f}\u{fe0e}\u{fe01} é\u{fe05}"), "❤\u{fe0f}\u{fffd}\u{fffd} é\u{fffd}");
        assert_eq!(neutralise("a\u{2062}b\u{3164}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(neutralise("one\r\ntwo\rthree\u{85}"), "one\ntwo\u{fffd}three\u{fffd}");
    }
}
