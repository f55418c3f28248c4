//! Text forms: what a JSON Schema admits for a text, and what the parser of the same text reads.

use std::sync::OnceLock;

use regex::Regex;

/// Form of a text: a pattern and a maximum length.
///
/// A schema is written from the form and the parser checks it, so that the API server admits nothing that the parser
/// does not read. The API server compiles the pattern with Go's `regexp`, the parser with Rust's `regex`: patterns use
/// only what means the same in both.
#[derive(Debug)]
pub struct TextForm {
    /// Pattern of the whole text, with anchors.
    pub pattern: &'static str,
    /// Maximum length in Unicode scalar values.
    pub max_length: usize,
    compiled: OnceLock<Option<Regex>>,
}

impl TextForm {
    /// Creates a form. A pattern that does not compile admits nothing.
    pub const fn new(pattern: &'static str, max_length: usize) -> Self {
        Self { pattern, max_length, compiled: OnceLock::new() }
    }

    /// Returns whether the text has the form.
    pub fn admits(&self, text: &str) -> bool {
        let pattern = self.compiled.get_or_init(|| Regex::new(self.pattern).ok());
        text.chars().count() <= self.max_length && pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_limits_pattern_and_length() {
        static FORM: TextForm = TextForm::new("^[é]+$", 3);
        assert!(FORM.admits("ééé"));
        for text in ["", "éééé", "é\n", "e"] {
            assert!(!FORM.admits(text), "{text:?} was admitted");
        }
    }

    #[test]
    fn a_pattern_that_does_not_compile_admits_nothing() {
        static FORM: TextForm = TextForm::new("^(", 3);
        assert!(!FORM.admits("") && !FORM.admits("("));
    }
}
