//! Helpers that check fields from the wire.

use super::ConvertError;

pub(super) fn invalid(field: &'static str, expected: &'static str) -> ConvertError {
    ConvertError::Invalid { field, expected }
}

pub(super) fn require(holds: bool, field: &'static str, expected: &'static str) -> Result<(), ConvertError> {
    if holds { Ok(()) } else { Err(invalid(field, expected)) }
}

pub(super) fn each<M, T>(
    messages: Vec<M>,
    convert: impl FnMut(M) -> Result<T, ConvertError>,
) -> Result<Vec<T>, ConvertError> {
    messages.into_iter().map(convert).collect()
}

/// Returns the text, or an error if it is empty.
pub(super) fn text(value: String, field: &'static str) -> Result<String, ConvertError> {
    require(!value.is_empty(), field, "present")?;
    Ok(value)
}
