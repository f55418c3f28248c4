//! Converts between wire messages and the model of a policy.
//!
//! Both directions destructure every struct completely (no `..`), so a field that is added on one side does not compile
//! until the other side has it. Conversion to the wire cannot fail; conversion from the wire checks every value once.

mod field;
mod from_wire;
mod rule_from_wire;
mod size;
mod table;
mod to_wire;

pub use from_wire::{MAX_ALL_HELD, MAX_HELD, from_wire};
pub(crate) use size::expanded_size;
pub use size::{grant_size, list_size, principal_size, server_size};
pub use to_wire::to_wire;

/// Why a message is not a valid policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The policy requires a feature that this version does not know.
    #[error("failed to convert the policy: it requires the feature {0:?}, which this version does not know")]
    UnknownFeature(String),
    /// A required field is missing, or is of a kind that this version does not know.
    #[error("failed to convert the policy: {0} is missing or of an unknown kind")]
    Missing(&'static str),
    /// A field has an invalid value.
    #[error("failed to convert the policy: {field} is not {expected}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// What the value should be.
        expected: &'static str,
    },
}
