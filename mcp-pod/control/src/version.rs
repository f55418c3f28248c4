//! Version negotiation and the other constants that operator and gateway agree on before they exchange messages.

use tonic::{Code, Status};

/// The oldest version of the control protocol that this build supports.
pub const MIN: u32 = 1;
/// The newest version of the control protocol that this build supports.
pub const MAX: u32 = 1;

/// Audience of the projected ServiceAccount token with which a gateway authenticates.
pub const AUDIENCE: &str = "mcp-fleet-control";
/// Status message with which a replica that is not the leader ends a stream.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// The largest message of the stream in bytes: a policy of [`crate::codec::MAX_POLICY`] and its envelope.
pub const MAX_MESSAGE: usize = crate::codec::MAX_POLICY + 64 * 1024;

/// Returns the highest version that both this build and a peer that supports `min..=max` know. If there is none, the
/// stream has to be closed.
pub fn negotiate(min: u32, max: u32) -> Option<u32> {
    let common = max.min(MAX);
    (min <= max && common >= min.max(MIN)).then_some(common)
}

/// Returns the status with which a replica that is not the leader answers.
pub fn not_leader() -> Status {
    Status::unavailable(NOT_LEADER)
}

/// Returns whether a status comes from a replica that is not the leader, so that the gateway should dial another one.
pub fn is_not_leader(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message() == NOT_LEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen_if_there_is_one() {
        assert_eq!(negotiate(MIN, MAX), Some(MAX));
        assert_eq!(negotiate(MIN, MAX + 1), Some(MAX));
        assert_eq!(negotiate(MAX + 1, MAX + 2), None);
        assert_eq!(negotiate(0, 0), None);
        assert_eq!(negotiate(MAX, MIN - 1), None);
    }

    #[test]
    fn a_follower_is_distinguished_from_a_broken_connection() {
        assert!(is_not_leader(&not_leader()));
        assert!(!is_not_leader(&Status::unavailable("tcp connect error")));
    }
}
