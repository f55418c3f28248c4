//! The denial of arguments that not every parser would read alike.
//!
//! Such a call is refused whatever its tool is. The caller learns which argument is wrong, so that a model can correct it.

use std::ops::Range;

use crate::denial::{Denial, escape_name};
use crate::json::{ParseError, Problem, outline};
use crate::reason::Reason;

/// Names of a path that a text shows; more would make it long.
const MAX_SHOWN: usize = 8;

/// What is wrong with the arguments of a call, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    problem: Problem,
    /// Names from the arguments to the problem, as the caller wrote them; an item of an array is `[]`.
    path: Vec<String>,
}

impl Unreadable {
    /// Describes the error of a text whose arguments are in this range. Returns `None` if the error is elsewhere.
    pub fn find(text: &[u8], arguments: &Range<usize>, error: ParseError) -> Option<Self> {
        let ParseError { problem, offset } = error;
        if !arguments.contains(&offset) {
            return None;
        }
        let mut path = outline::path_to(text, arguments.start, offset);
        if problem == Problem::DuplicateKey {
            // The error is at the first member of the object.
            path.pop();
            path.extend(outline::repeated_name(text, offset));
        }
        Some(Self { problem, path })
    }

    /// Returns the denial. `declares` tells whether the caller may send an argument with this name.
    pub fn denial(&self, declares: impl Fn(&str) -> bool) -> Denial {
        let (reason, limit) = self.limit();
        let denial = Denial::new(reason);
        let Some(first) = self.path.first() else { return denial.with_limit(format!("the arguments {limit}")) };
        let mut name = String::new();
        for part in self.path.iter().take(MAX_SHOWN) {
            if !name.is_empty() && part != "[]" {
                name.push('.');
            }
            name.push_str(&escape_name(part));
        }
        let argument = declares(first).then(|| first.clone());
        Denial { argument, ..denial.with_limit(format!("argument `{name}` {limit}")) }
    }

    const fn limit(&self) -> (Reason, &'static str) {
        match self.problem {
            Problem::IntegerRange => (
                Reason::ArgumentOutOfRange,
                "must be a whole number between -9007199254740991 and 9007199254740991; larger ones are not read alike \
                 by everyone, so send them as a string where a string is accepted",
            ),
            Problem::NumberRange => (Reason::ArgumentOutOfRange, "must be a number that a double can hold"),
            Problem::NumberPrecision => {
                (Reason::ArgumentOutOfRange, "must be a number with no more digits than a double can hold")
            }
            Problem::Depth => (Reason::ArgumentOutOfRange, "must be nested less deeply"),
            Problem::Nodes | Problem::Memory => (Reason::ArgumentOutOfRange, "must contain fewer values"),
            Problem::Utf8 => (Reason::ArgumentPattern, "must be valid UTF-8"),
            Problem::LoneSurrogate => (Reason::ArgumentPattern, "must not contain half of a surrogate pair"),
            Problem::Escape => (Reason::ArgumentPattern, "must contain only escapes that JSON has"),
            Problem::ControlCharacter => (Reason::ArgumentPattern, "must escape its control characters"),
            Problem::NulInKey => (Reason::ArgumentUndeclared, "must not have U+0000 in its name"),
            Problem::DuplicateKey => (Reason::ArgumentType, "must be given only once"),
            Problem::ByteOrderMark | Problem::End | Problem::Unexpected | Problem::Trailing | Problem::Number => {
                (Reason::ArgumentType, "must be valid JSON")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::json::{Limits, parse};

    fn denial(arguments: &str) -> Denial {
        let text = format!(r#"{{"name":"t","arguments":{arguments},"x":1}}"#);
        let error = parse(text.as_bytes(), &Limits::REQUEST).unwrap_err();
        let range = outline::find(text.as_bytes(), 0, "arguments").unwrap();
        Unreadable::find(text.as_bytes(), &range, error).unwrap().denial(|name| name == "n")
    }

    #[test]
    fn the_denial_names_the_argument_and_what_is_wrong_with_it() {
        for (arguments, reason, text) in [
            (r#"{"n":725653563933458432}"#, Reason::ArgumentOutOfRange, "argument `n` must be a whole number between"),
            (r#"{"a":1,"n":[0,{"m":1e400}]}"#, Reason::ArgumentOutOfRange, "argument `n[].m` must be a number that"),
            (
                r#"{"n":0.1000000000000000001}"#,
                Reason::ArgumentOutOfRange,
                "argument `n` must be a number with no more",
            ),
            (r#"{"n":"\ud800"}"#, Reason::ArgumentPattern, "argument `n` must not contain half"),
            (r#"{"n":"\q"}"#, Reason::ArgumentPattern, "argument `n` must contain only escapes"),
            ("{\"n\":\"a\nb\"}", Reason::ArgumentPattern, "argument `n` must escape"),
            (r#"{"n":NaN}"#, Reason::ArgumentType, "argument `n` must be valid JSON"),
            (r#"{"n":1,"m":2,"\u006e":3}"#, Reason::ArgumentType, "argument `n` must be given only once"),
            (r#"{"n":{"m":2,"m":3}}"#, Reason::ArgumentType, "argument `n.m` must be given only once"),
            (r#"{"n":1 2}"#, Reason::ArgumentType, "argument `n` must be valid JSON"),
            ("{7}", Reason::ArgumentType, "the arguments must be valid JSON"),
        ] {
            let denial = denial(arguments);
            assert_eq!(denial.reason, reason, "{arguments}");
            assert!(denial.limit.as_ref().unwrap().starts_with(text), "{arguments}: {denial:?}");
        }
        let deep = format!(r#"{{"n":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
        assert_eq!(denial(&deep).reason, Reason::ArgumentOutOfRange);
    }

    #[test]
    fn only_a_name_from_the_policy_is_repeated_as_it_is() {
        assert_eq!(denial(r#"{"n":1e400}"#).argument.as_deref(), Some("n"));
        let hostile = denial("{\"`x`\u{202e}\":1e400}");
        assert_eq!(hostile.argument, None);
        assert!(hostile.limit.unwrap().starts_with(r"argument `\u{60}x\u{60}\u{202e}` must be"));
    }

    #[test]
    fn an_error_outside_the_arguments_is_not_theirs() {
        let text = br#"{"arguments":{},"n":1e400}"#;
        let error = parse(text, &Limits::REQUEST).unwrap_err();
        assert_eq!(Unreadable::find(text, &(13..15), error), None);
    }
}
