//! Checks any JSON against bounds, without writing it.

use crate::json::Value;
use crate::model::JsonRule;

/// Name that no object with free names may have: a server in JavaScript that copies it changes what all objects inherit.
pub(super) const PROTOTYPE: &str = "__proto__";

/// Why a value is not within the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// It has too many bytes, or is nested too deeply.
    Bounds,
    /// It has a text with U+0000.
    Nul,
    /// It has an object with the name [`PROTOTYPE`].
    Prototype,
}

/// Checks a value. Ends as soon as it is too large.
pub(super) fn check(value: &Value<'_>, bounds: JsonRule) -> Result<(), Excess> {
    let depth = usize::try_from(bounds.max_depth).unwrap_or(usize::MAX);
    let mut left = usize::try_from(bounds.max_bytes).unwrap_or(usize::MAX);
    measure(value, depth, &mut left)
}

/// Subtracts the bytes of the value in compact form from `left`.
fn measure(value: &Value<'_>, depth: usize, left: &mut usize) -> Result<(), Excess> {
    match value {
        Value::Null | Value::Bool(true) => take(left, 4),
        Value::Bool(false) => take(left, 5),
        Value::Integer(_) | Value::Number(_) => {
            let mut text = Vec::new();
            crate::json::write(value, &mut text);
            take(left, text.len())
        }
        Value::String(text) => string(text, left),
        Value::Array(items) => {
            let depth = depth.checked_sub(1).ok_or(Excess::Bounds)?;
            take(left, 2 + items.len().saturating_sub(1))?;
            items.iter().try_for_each(|item| measure(item, depth, left))
        }
        Value::Object(members) => {
            let depth = depth.checked_sub(1).ok_or(Excess::Bounds)?;
            take(left, 2 + members.len().saturating_sub(1) + members.len())?;
            members.iter().try_for_each(|(name, item)| {
                if name == PROTOTYPE {
                    return Err(Excess::Prototype);
                }
                string(name, left)?;
                measure(item, depth, left)
            })
        }
    }
}

fn string(text: &str, left: &mut usize) -> Result<(), Excess> {
    take(left, text.len() + 2)?;
    let mut escapes = 0;
    for byte in text.bytes() {
        escapes += match byte {
            0 => return Err(Excess::Nul),
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
            1..=0x1f => 5,
            _ => 0,
        };
    }
    take(left, escapes)
}

fn take(left: &mut usize, bytes: usize) -> Result<(), Excess> {
    *left = left.checked_sub(bytes).ok_or(Excess::Bounds)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn depth(value: &Value<'_>) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.iter().map(|(_, item)| depth(item)).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn a_value_is_measured_as_it_is_written(value in testing::value(), text in "[a-z\"\\\\\\n\u{1}\u{7f}é]{0,8}") {
            let value = Value::Array(vec![value, Value::String(text.into())]);
            let mut written = Vec::new();
            crate::json::write(&value, &mut written);
            let fits = |bytes: usize, levels: usize| {
                check(&value, JsonRule { max_bytes: u32::try_from(bytes).unwrap(), max_depth: u32::try_from(levels).unwrap() })
            };
            if String::from_utf8_lossy(&written).contains("\\u0000") {
                prop_assert_eq!(fits(written.len(), depth(&value)), Err(Excess::Nul));
            } else {
                prop_assert_eq!(fits(written.len(), depth(&value)), Ok(()));
                prop_assert_eq!(fits(written.len() - 1, depth(&value)), Err(Excess::Bounds));
                prop_assert!(fits(written.len(), depth(&value) - 1).is_err());
            }
        }
    }

    #[test]
    fn an_object_may_not_change_what_others_inherit() {
        let object = Value::Array(vec![Value::Object(vec![("__proto__".into(), Value::Null)])]);
        assert_eq!(check(&object, JsonRule { max_bytes: 99, max_depth: 9 }), Err(Excess::Prototype));
    }
}
