//! The members of an object and where they are in the text, found without judging the values.
//!
//! [`super::parse`] decides whether a text is accepted. This only finds places: where to add to a text that was parsed
//! before, and what to name in the refusal of one that was rejected.

use std::ops::Range;

use super::{Limits, parse};

/// Names and brackets that [`path_to`] follows at most: more than any accepted text is nested.
const MAX_STEPS: usize = 64;

/// The place of one member in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Range of the key, with its quotes.
    pub key: Range<usize>,
    /// Range of the value.
    pub value: Range<usize>,
}

/// Returns the range of the text without the white space around it.
pub fn trimmed(text: &[u8]) -> Range<usize> {
    let start = text.len() - text.trim_ascii_start().len();
    start..text.trim_ascii_end().len().max(start)
}

/// Returns the members of the object that begins at `start`, in the order of the text. There are none if no object begins
/// there, and none after the first one that cannot be told apart.
pub fn members(text: &[u8], start: usize) -> impl Iterator<Item = Member> {
    let mut at = if text.get(start) == Some(&b'{') { start + 1 } else { text.len() };
    std::iter::from_fn(move || {
        at = skip(text, at, |byte| byte.is_ascii_whitespace() || byte == b',');
        if text.get(at) != Some(&b'"') {
            return None;
        }
        let key = at..value_end(text, at);
        at = skip(text, key.end, |byte| byte.is_ascii_whitespace() || byte == b':');
        let value = at..value_end(text, at);
        at = value.end;
        Some(Member { key, value })
    })
}

/// Returns the value of the only member with this name of the object that begins at `start`.
pub fn find(text: &[u8], start: usize, name: &str) -> Option<Range<usize>> {
    let mut found = members(text, start).filter(|member| is_name(text, &member.key, name));
    let only = found.next()?;
    found.next().is_none().then_some(only.value)
}

/// Returns whether the key in this range is that name. It may be written with escapes.
pub fn is_name(text: &[u8], key: &Range<usize>, name: &str) -> bool {
    let key = text.get(key.clone()).unwrap_or_default();
    parse(key, &Limits::RESULT).is_ok_and(|key| key.as_str() == Some(name))
}

/// Returns the names that lead from the value that begins at `start` to an offset in it; an item of an array is `[]`.
pub fn path_to(text: &[u8], start: usize, offset: usize) -> Vec<String> {
    let (mut path, mut at) = (Vec::new(), start);
    while path.len() < MAX_STEPS {
        at = match text.get(at) {
            Some(b'{') => {
                let Some(member) = members(text, at).find(|member| offset < member.value.end.max(member.key.end))
                else {
                    break;
                };
                if offset < member.key.start {
                    break;
                }
                path.push(name(text, &member.key));
                member.value.start
            }
            Some(b'[') => {
                let Some(item) = items(text, at).find(|item| offset < item.end) else { break };
                path.push("[]".to_owned());
                item.start
            }
            _ => break,
        };
        if offset < at {
            break;
        }
    }
    path
}

/// Returns the first name that the object with its first member at `first` has twice.
pub fn repeated_name(text: &[u8], first: usize) -> Option<String> {
    let start = text.get(..first)?.iter().rposition(|byte| *byte == b'{')?;
    let mut seen = foldhash::HashSet::default();
    members(text, start).map(|member| name(text, &member.key)).find(|name| !seen.insert(name.clone()))
}

/// Returns the items of the array that begins at `start`.
fn items(text: &[u8], start: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = start + 1;
    std::iter::from_fn(move || {
        at = skip(text, at, |byte| byte.is_ascii_whitespace() || byte == b',');
        let item = at..value_end(text, at);
        at = item.end;
        (!item.is_empty()).then_some(item)
    })
}

/// Returns the name of a key, as far as it can be read.
fn name(text: &[u8], key: &Range<usize>) -> String {
    let key = text.get(key.clone()).unwrap_or_default();
    match parse(key, &Limits::RESULT).as_ref().map(super::Value::as_str) {
        Ok(Some(name)) => name.to_owned(),
        _ => String::from_utf8_lossy(key.trim_ascii()).trim_matches('"').to_owned(),
    }
}

fn skip(text: &[u8], from: usize, which: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    rest.iter().position(|byte| !which(*byte)).map_or(text.len(), |length| from + length)
}

/// Returns the end of the value that begins at `from`.
pub fn value_end(text: &[u8], from: usize) -> usize {
    let (mut depth, mut in_string, mut at) = (0_u32, false, from);
    while let Some(byte) = text.get(at) {
        match (in_string, byte) {
            (true, b'\\') => at += 1,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}' | b',') if depth == 0 => return at,
            (false, b']' | b'}') => depth -= 1,
            _ => {}
        }
        at += 1;
        let closed = !in_string && depth == 0 && matches!(byte, b'"' | b']' | b'}');
        if closed {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, name: &str) -> Option<String> {
        find(text.as_bytes(), trimmed(text.as_bytes()).start, name).map(|range| text[range].to_owned())
    }

    #[test]
    fn a_member_is_found_whatever_its_value_is() {
        let text = r#" {"a":[1,{"b":"}\""}], "b\u0063" : NaN ,"d":{"e":"#;
        assert_eq!(found(text, "a").as_deref(), Some(r#"[1,{"b":"}\""}]"#));
        assert_eq!(found(text, "bc").as_deref(), Some("NaN "));
        assert_eq!(found(text, "d").as_deref(), Some(r#"{"e":"#));
        assert_eq!(found(text, "e"), None);
        assert_eq!(found(r#"{"a":1,"a":2}"#, "a"), None, "which one is meant is not known");
        assert_eq!(found("[1]", "a"), None);
    }

    #[test]
    fn the_path_to_an_offset_names_members_and_items() {
        let text = r#"{"a":1,"list":[{"x":0},{"y":{"z":HERE}}],"end":2}"#;
        let path = |marker: &str| path_to(text.as_bytes(), 0, text.find(marker).unwrap_or(0));
        assert_eq!(path("HERE"), ["list", "[]", "y", "z"]);
        assert_eq!(path("2}"), ["end"]);
        assert_eq!(path("\"list"), ["list"]);
        assert!(path_to(text.as_bytes(), 0, 0).is_empty());
        assert!(path_to(b"7", 0, 0).is_empty());
    }

    #[test]
    fn a_repeated_name_is_found_however_it_is_written() {
        let text = r#"{"a":{"b":1,"c":2,"\u0062":3}}"#;
        assert_eq!(repeated_name(text.as_bytes(), 6).as_deref(), Some("b"));
        assert_eq!(repeated_name(text.as_bytes(), 1), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_crashes_it(text in proptest::collection::vec(proptest::sample::select(&b"{}[]\",:\\ a1\xff"[..]), 0..80), at in 0..90_usize) {
            let _ = (path_to(&text, trimmed(&text).start, at), repeated_name(&text, at), find(&text, at, "a"));
            proptest::prop_assert!(members(&text, at).count() <= text.len());
        }
    }
}
