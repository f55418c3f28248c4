//! The tables in this folder, which are tested against a real API server and against the crate `mcp-fleet-admission`.

use serde_json::Value;

/// A valid object, and variations of it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// The valid object.
    pub(crate) good: Value,
    /// Variations of the object.
    pub(crate) cases: Vec<Case>,
}

/// One variation of the valid object.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Description of the variation.
    pub(crate) name: String,
    /// JSON merge patch to apply to the object before it is created.
    pub(crate) patch: Option<Value>,
    /// JSON merge patch to apply to the object after it was created.
    pub(crate) change: Option<Value>,
    /// Part of the expected error message. Absent: the API server accepts the object.
    pub(crate) refused: Option<String>,
}

/// Compares an answer with the expected error message, and describes the difference, if any.
pub(crate) fn compare(name: &str, answer: Result<Value, String>, refused: Option<&str>) -> Option<String> {
    match (answer, refused) {
        (Ok(_), None) => None,
        (Err(message), Some(part)) if message.contains(part) => None,
        (Err(message), None) => Some(format!("{name}: refused: {message}")),
        (Ok(_), Some(part)) => Some(format!("{name}: accepted, but should be refused with {part:?}")),
        (Err(message), Some(part)) => Some(format!("{name}: refused without {part:?}: {message}")),
    }
}

/// Applies a JSON merge patch (RFC 7396).
pub(crate) fn merged(target: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut result = target.as_object().cloned().unwrap_or_default();
    for (key, change) in changes {
        if change.is_null() {
            result.remove(key);
        } else {
            let before = result.get(key).cloned().unwrap_or_default();
            result.insert(key.clone(), merged(&before, change));
        }
    }
    Value::Object(result)
}
