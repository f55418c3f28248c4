//! Between the messages of the wire and the model of a policy.
//!
//! Both ways take every struct apart field by field (no `..`): a field that one side gains does not compile until
//! the other side has it. From the model to the wire nothing can fail; from the wire everything is checked once.

mod from_wire;
mod part;
mod rule_from_wire;
mod to_wire;

pub use from_wire::from_wire;
pub use to_wire::to_wire;

/// Why a message is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The policy needs something that this build does not enforce.
    #[error("failed to convert the policy: it requires the feature {0:?}, which this version does not know")]
    UnknownFeature(String),
    /// A part that must be there is not, or is of a kind that this build does not know.
    #[error("failed to convert the policy: {0} is missing or of an unknown kind")]
    Missing(&'static str),
    /// A part has a value that it cannot have.
    #[error("failed to convert the policy: {field} is not {expected}")]
    Invalid {
        /// The part.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}
