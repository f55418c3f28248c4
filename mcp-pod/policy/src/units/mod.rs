//! Numbers with units, and the text forms in which users write them.
//!
//! Each type has one parser with one set of limits, used by the custom resources and by the gateway alike.

mod micros;
#[cfg(feature = "schemars")]
mod schema;
mod size;
mod window;

pub use micros::{Currency, Micros};
pub use size::Bytes;
pub use window::Window;

/// A quantity that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not in the form that the type takes.
    #[error("{value:?} is not {expected}")]
    Form {
        /// What was written.
        value: String,
        /// What is taken, with an example.
        expected: &'static str,
    },
    /// In the right form, but too large or too small.
    #[error("{value:?} is out of range: {range}")]
    Range {
        /// What was written.
        value: String,
        /// The limits, in the form that is taken.
        range: &'static str,
    },
}
