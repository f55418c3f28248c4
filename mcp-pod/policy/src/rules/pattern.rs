//! Patterns in the common subset of the regular expressions of ECMA-262 and of Rust's `regex`.
//!
//! Agents check values against the pattern in a JSON Schema (ECMA-262); the gateway checks them against the same text
//! compiled here. Syntax with a different meaning in the two is either rewritten (`.`, `\d`, `\w`, `\s`) or refused
//! (look-around, back references, flags, property classes, set operations, a bare brace).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use regex::{Regex, RegexBuilder};

use super::forms::MAX_PATTERN;

/// Memory limit in bytes of a compiled pattern, and of its cache.
const MAX_SIZE: usize = 256 * 1024;
/// The characters that `\s` matches in ECMA-262, as members of a class.
const SPACE: &str = r"\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}";

/// A pattern that must match the whole string. Equal patterns share one regular expression, which is built when it is
/// first needed: it takes far more memory than its source.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Arc<Shared>);

/// Patterns with the same source are the same.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Pattern {}

#[derive(Debug)]
struct Shared {
    source: String,
    /// For Rust's `regex`, anchored at both ends.
    translated: String,
    /// `None` if the expression cannot be built. It then matches nothing.
    regex: OnceLock<Option<Regex>>,
}

/// The patterns in use, in all policies of the process.
static IN_USE: LazyLock<Mutex<InUse>> = LazyLock::new(Mutex::default);
/// Number of patterns that are kept although nothing uses them, because the same ones are often validated again.
const RECENT: usize = 64;

#[derive(Debug, Default)]
struct InUse {
    by_source: HashMap<String, Weak<Shared>>,
    /// Size of `by_source` at which entries that are no longer used are removed.
    prune_at: usize,
    recent: VecDeque<Arc<Shared>>,
}

impl InUse {
    fn insert(&mut self, shared: &Arc<Shared>) {
        if self.by_source.len() >= self.prune_at {
            self.by_source.retain(|_, known| known.strong_count() > 0);
            self.prune_at = (2 * self.by_source.len()).max(RECENT);
        }
        self.by_source.insert(shared.source.clone(), Arc::downgrade(shared));
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(shared));
    }
}

/// Why a pattern is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The pattern is longer than [`MAX_PATTERN`].
    #[error("the pattern is longer than {MAX_PATTERN} characters")]
    Length,
    /// The pattern uses syntax that the two dialects read differently, or that only one of them has.
    #[error("{0}, which the regular expressions of ECMA-262 and of the gateway do not read in the same way")]
    Dialect(&'static str),
    /// The pattern is not a regular expression, or takes too much memory.
    #[error("not a usable regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    /// Reads a pattern, without building its expression.
    pub(crate) fn new(source: &str) -> Result<Self, PatternError> {
        if source.chars().count() > MAX_PATTERN {
            return Err(PatternError::Length);
        }
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = in_use.by_source.get(source).and_then(Weak::upgrade) {
            return Ok(Self(known));
        }
        let translated = format!(r"\A(?:{})\z", translate(source)?);
        let shared = Arc::new(Shared { source: source.to_owned(), translated, regex: OnceLock::new() });
        in_use.insert(&shared);
        Ok(Self(shared))
    }

    /// Checks that the expression can be built.
    pub(crate) fn validate(&self) -> Result<(), PatternError> {
        if self.0.regex.get().is_some_and(Option::is_some) {
            return Ok(());
        }
        let regex = self.0.build().map_err(|error| PatternError::Syntax(error.to_string()))?;
        self.0.regex.get_or_init(|| Some(regex));
        Ok(())
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.regex.get_or_init(|| self.0.build().ok()).as_ref().is_some_and(|regex| regex.is_match(text))
    }

    /// Returns the pattern as its author wrote it.
    pub(crate) fn source(&self) -> &str {
        &self.0.source
    }

    /// Returns the pattern for a JSON Schema, with anchors, because schema patterns are not anchored implicitly.
    pub(crate) fn anchored(&self) -> String {
        format!("^(?:{})$", self.0.source)
    }
}

impl Shared {
    fn build(&self) -> Result<Regex, regex::Error> {
        let mut builder = RegexBuilder::new(&self.translated);
        builder.size_limit(MAX_SIZE).dfa_size_limit(MAX_SIZE).nest_limit(32).build()
    }
}

/// Escapes a text so that, as a pattern, it matches only itself in both dialects.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if r"^$\.*+?()[]{}|".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Translates an ECMA-262 pattern to one that matches the same strings with Rust's `regex`.
fn translate(source: &str) -> Result<String, PatternError> {
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
        match character {
            '.' => out.push_str(r"[^\n\r\x{2028}\x{2029}]"),
            '\\' => rest = escaped(rest, false, &mut out)?,
            '[' => rest = class(rest, &mut out)?,
            '(' => {
                if let Some(tail) = rest.strip_prefix('?') {
                    rest = tail.strip_prefix(':').ok_or(PatternError::Dialect("a group other than (…) and (?:…)"))?;
                }
                // Captures are not used.
                out.push_str("(?:");
            }
            '{' => {
                let (bounds, tail) = rest.split_once('}').ok_or(PatternError::Dialect("a bare brace"))?;
                if !is_repetition(bounds) {
                    return Err(PatternError::Dialect("a bare brace"));
                }
                out.push('{');
                out.push_str(bounds);
                out.push('}');
                rest = tail;
            }
            '}' | ']' => return Err(PatternError::Dialect("a bare bracket or brace")),
            other => out.push(other),
        }
    }
    Ok(out)
}

/// Returns whether the text is `n`, `n,` or `n,m`.
fn is_repetition(bounds: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    match bounds.split_once(',') {
        None => number(bounds),
        Some((min, max)) => number(min) && (max.is_empty() || number(max)),
    }
}

/// Translates the escape after a backslash; returns the remaining text.
fn escaped<'s>(rest: &'s str, in_class: bool, out: &mut String) -> Result<&'s str, PatternError> {
    let character = rest.chars().next().ok_or(PatternError::Dialect("a backslash at the end"))?;
    let mut class = |positive: bool, members: &str| match (in_class, positive) {
        (true, true) => {
            out.push_str(members);
            Ok(())
        }
        (true, false) => Err(PatternError::Dialect("a negated class within a class")),
        (false, positive) => {
            out.push_str(if positive { "[" } else { "[^" });
            out.push_str(members);
            out.push(']');
            Ok(())
        }
    };
    match character {
        'd' => class(true, "0-9")?,
        'D' => class(false, "0-9")?,
        'w' => class(true, "0-9A-Z_a-z")?,
        'W' => class(false, "0-9A-Z_a-z")?,
        's' => class(true, SPACE)?,
        'S' => class(false, SPACE)?,
        'n' | 'r' | 't' | 'v' | 'f' | '^' | '$' | '\\' | '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}'
        | '|' | '/' => {
            out.push('\\');
            out.push(character);
        }
        '-' if in_class => out.push_str(r"\-"),
        _ => return Err(PatternError::Dialect("an escape that is not in both dialects")),
    }
    Ok(rest.get(character.len_utf8()..).unwrap_or_default())
}

/// Translates the class whose opening bracket is just before `rest`; returns the text after its closing bracket.
fn class<'s>(mut rest: &'s str, out: &mut String) -> Result<&'s str, PatternError> {
    out.push('[');
    if let Some(tail) = rest.strip_prefix('^') {
        out.push('^');
        rest = tail;
    }
    if rest.starts_with(']') {
        return Err(PatternError::Dialect("an empty class"));
    }
    let (start, mut last, mut was_class) = (out.len(), None, false);
    loop {
        let character = rest.chars().next().ok_or(PatternError::Dialect("a class without a closing bracket"))?;
        let is_class = rest.strip_prefix('\\').is_some_and(|tail| tail.starts_with(['d', 'w', 's']));
        // Otherwise the members of `\w`, once expanded, would become the ends of a range.
        if (is_class && last == Some('-') && out.len() > start + 1)
            || (was_class && character == '-' && !rest.starts_with("-]"))
        {
            return Err(PatternError::Dialect("a range that begins or ends with a class"));
        }
        was_class = is_class;
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
        match character {
            ']' => {
                out.push(']');
                return Ok(rest);
            }
            '\\' => rest = escaped(rest, true, out)?,
            '[' => return Err(PatternError::Dialect("a bracket within a class")),
            '&' | '~' | '-' if last == Some(character) => {
                return Err(PatternError::Dialect("a doubled sign within a class"));
            }
            other => out.push(other),
        }
        last = Some(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    fn validate(pattern: &str) -> Result<(), PatternError> {
        Pattern::new(pattern)?.validate()
    }

    #[test]
    fn a_pattern_matches_the_whole_string() {
        assert!(matches("a|ab", "ab"));
        assert!(!matches("a|ab", "abc"));
        assert!(!matches("a", "a\n"));
        assert!(!matches("[a-z]+", "x y"));
        assert!(matches("^a$", "a"));
    }

    #[test]
    fn classes_match_as_in_ecma_262() {
        assert!(matches(r"\d+", "42"));
        assert!(!matches(r"\d", "٣"));
        assert!(!matches(r"\w", "é"));
        assert!(matches(r"[\w-]+", "a-b_1"));
        assert!(matches(r"[-\w]+", "a-b_1"));
        assert!(!matches(r"[.\-\w]+", "../../etc"));
        assert!(matches(r"\s", "\u{feff}"));
        assert!(!matches(".", "\u{2028}"));
        assert!(matches(".", "😀"));
        assert!(matches(r"[^\d]{2,3}", "ab"));
    }

    #[test]
    fn syntax_that_the_dialects_read_differently_is_refused() {
        for pattern in [
            r"\bx",
            r"(?=x)",
            r"(?<!x)",
            r"(?i)x",
            r"(?P<n>x)",
            r"(?<n>x)",
            r"(x)\1",
            r"\p{L}",
            r"\x41",
            r"\u0041",
            r"\Ax",
            r"x\z",
            "[[:alpha:]]",
            "[a&&b]",
            "[a--b]",
            "[a~~b]",
            "[]a]",
            "[^]",
            "x{",
            "x{,3}",
            "x}",
            "x]",
            r"\-",
            "[a",
            r"x\",
            r"[\D]",
            r"[.-\w]+",
            r"[a-\d]",
            r"[^a-\s]",
            r"[\w-.]",
            r"[\d-\w]",
            "(",
            "*",
            r"\a",
        ] {
            assert!(validate(pattern).is_err(), "{pattern} was accepted");
        }
    }

    #[test]
    fn a_pattern_that_needs_too_much_memory_is_refused() {
        let large = "((a{1,999}){1,999}){1,999}";
        assert!(validate(large).is_err());
        assert!(!matches(large, "a"), "it matches nothing if it was not validated");
        assert_eq!(validate(&"a".repeat(2000)).unwrap_err(), PatternError::Length);
    }

    #[test]
    fn equal_patterns_share_one_expression_that_is_built_when_it_is_needed() {
        let (one, two) = (Pattern::new("shared-[a-z]+").unwrap(), Pattern::new("shared-[a-z]+").unwrap());
        assert!(Arc::ptr_eq(&one.0, &two.0));
        assert!(one.0.regex.get().is_none());
        assert!(one.matches("shared-a") && two.0.regex.get().is_some());
    }

    #[test]
    fn patterns_that_nothing_uses_are_forgotten() {
        for number in 0..10 * RECENT {
            Pattern::new(&format!("forgotten-{number}")).unwrap();
        }
        let known = IN_USE.lock().unwrap().by_source.keys().filter(|source| source.starts_with("forgotten")).count();
        assert!(known <= 4 * RECENT, "{known} patterns");
    }

    #[test]
    fn an_escaped_text_matches_only_itself() {
        let text = "/a.b*c(d)[e]{f}|g\\^$+?";
        assert!(matches(&escape(text), text));
        assert!(!matches(&escape("a.b"), "axb"));
    }
}
