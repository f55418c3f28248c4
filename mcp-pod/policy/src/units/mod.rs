//! Quantities with units: amounts of money, sizes and durations, with the text forms that users write.
//!
//! Each type has one parser with one set of limits, used by both the custom resources and the gateway.

mod micros;
#[cfg(feature = "schemars")]
mod schema;
mod size;
mod window;

pub use micros::{Currency, Micros};
pub use size::Bytes;
pub use window::Window;

/// Why a quantity cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The text does not have the form of the type.
    #[error("{value:?} is not {expected}")]
    Form {
        /// The text as written.
        value: String,
        /// The accepted form, with an example.
        expected: &'static str,
    },
    /// The quantity is too large or too small.
    #[error("{value:?} is out of range: {range}")]
    Range {
        /// The text as written.
        value: String,
        /// The limits, in the accepted form.
        range: &'static str,
    },
}
