//! Quantities with units: amounts of money, sizes and durations, with the text forms that users write.
//!
//! Each type has one [`TextForm`], from which its JSON Schema is written and which its parser checks. The parser reads
//! every text that has the form, so every value that the API server admits can be read. [`limits`] are narrower limits
//! of single settings, which CEL rules check.

mod form;
pub mod limits;
mod micros;
#[cfg(feature = "schemars")]
mod schema;
mod size;
#[cfg(test)]
mod tests;
mod window;

pub use form::TextForm;
pub use limits::Limits;
pub use micros::{Currency, Micros};
pub use size::Bytes;
pub use window::Window;

/// A text does not have the form of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct UnitError {
    /// Beginning of the text.
    value: String,
    /// The accepted form, with an example.
    expected: &'static str,
}

impl UnitError {
    /// Creates the error for `text`, of which it keeps only the beginning.
    fn new(text: &str, expected: &'static str) -> Self {
        Self { value: text.chars().take(40).collect(), expected }
    }
}
