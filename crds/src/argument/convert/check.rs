//! Checks of single values: roots, enumerations, patterns.

use regex::RegexBuilder;

use super::ArgumentError;

/// The most bytes that a compiled pattern may take: what the gateway allows itself for one.
const PATTERN_SIZE: usize = 256 << 10;

/// Roots have to be absolute and normalised, so that comparing whole parts is enough.
pub(super) fn roots(within: &[String]) -> Result<(), ArgumentError> {
    if within.is_empty() {
        return Err(ArgumentError::new("path.within", "must name at least one directory"));
    }
    for root in within {
        let Some(rest) = root.strip_prefix('/') else {
            return Err(ArgumentError::new("path.within", format!("{root:?} must begin with a slash")));
        };
        let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        if !rest.is_empty() && rest.split('/').any(odd) {
            let problem = format!("{root:?} must not have `//`, `.`, `..` or a slash at the end; write it in full");
            return Err(ArgumentError::new("path.within", problem));
        }
    }
    Ok(())
}

/// The strings of an enumeration.
pub(super) fn values(values: &[String]) -> Result<Vec<String>, ArgumentError> {
    if values.is_empty() {
        return Err(ArgumentError::new("enum.values", "must hold at least one string"));
    }
    Ok(values.to_vec())
}

/// A pattern has to be anchored, to mean the same in ECMA-262 and here, and to compile within bounds.
pub(super) fn pattern(pattern: &str) -> Result<(), String> {
    if !pattern.starts_with('^') || !pattern.ends_with('$') || pattern.ends_with("\\$") {
        return Err("must begin with ^ and end with $, so that it covers the whole string".to_owned());
    }
    common_subset(pattern)?;
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE)
        .build()
        .map(drop)
        .map_err(|error| format!("does not compile; correct or shorten it: {}", last_line(&error.to_string())))
}

/// The last line of what `regex` says, which is the reason without the drawing.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

/// Refuses what ECMA-262 and Rust's `regex` read differently.
fn common_subset(pattern: &str) -> Result<(), String> {
    let characters: Vec<char> = pattern.chars().collect();
    let (mut class, mut depth) = (false, 0_usize);
    let mut at = 0;
    while let Some(&character) = characters.get(at) {
        let next = characters.get(at + 1).copied();
        match character {
            '\\' => {
                let known = next.is_some_and(|next| {
                    "dDwWsSbBnrtfv".contains(next) || next.is_ascii_punctuation() || next == 'x' || next == 'u'
                });
                if !known || matches!(characters.get(at + 2), Some('{')) && matches!(next, Some('x' | 'u' | 'p' | 'P'))
                {
                    return Err(format!(
                        "uses \\{}, which JSON Schema and the gateway do not read alike; write the characters out",
                        next.unwrap_or(' ')
                    ));
                }
                at += 2;
                continue;
            }
            '[' if class => {
                return Err("has [ inside a character class; write \\[ instead".to_owned());
            }
            '[' => class = true,
            ']' => class = false,
            '&' | '~' | '-' if class && next == Some(character) => {
                return Err(format!("has {character}{character} in a character class; escape the second one"));
            }
            '(' if !class => {
                let kind: String = characters.iter().skip(at + 1).take(2).collect();
                if kind.starts_with('?') && kind != "?:" {
                    return Err("uses a group other than (…) and (?:…); look-around and flags are not taken".to_owned());
                }
                depth += 1;
            }
            ')' if !class => depth = depth.saturating_sub(1),
            '|' if !class && depth == 0 => {
                return Err("has | outside a group, which ^ and $ do not cover; write ^(?:a|b)$".to_owned());
            }
            '^' if !class && at != 0 => {
                return Err("has ^ in the middle; it may only be the first character".to_owned());
            }
            '$' if !class && at + 1 != characters.len() => {
                return Err("has $ in the middle; it may only be the last character".to_owned());
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}
