//! What two neighbouring versions of operator and gateway have to agree on before they talk.

use tonic::{Code, Status};

/// The oldest version of the stream that this build speaks.
pub const MIN: u32 = 1;
/// The newest version of the stream that this build speaks.
pub const MAX: u32 = 1;

/// Audience of the projected token with which a gateway authenticates.
pub const AUDIENCE: &str = "mcp-fleet-control";
/// The message of the status with which a replica that does not lead ends a stream.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// The largest message of the stream, in bytes: a policy of [`crate::codec::MAX_POLICY`] and its envelope.
pub const MAX_MESSAGE: usize = crate::codec::MAX_POLICY + 64 * 1024;

/// The highest version that both this build and a peer speaking `min..=max` know; none: hang up.
pub fn negotiate(min: u32, max: u32) -> Option<u32> {
    let common = max.min(MAX);
    (min <= max && common >= min.max(MIN)).then_some(common)
}

/// What a replica that does not lead answers.
pub fn not_leader() -> Status {
    Status::unavailable(NOT_LEADER)
}

/// Whether a status says that the replica does not lead, so that another one should be dialled.
pub fn is_not_leader(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message() == NOT_LEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_agree_on_the_highest_common_version_and_strangers_on_none() {
        assert_eq!(negotiate(MIN, MAX), Some(MAX));
        assert_eq!(negotiate(MIN, MAX + 1), Some(MAX));
        assert_eq!(negotiate(MAX + 1, MAX + 2), None);
        assert_eq!(negotiate(0, 0), None);
        assert_eq!(negotiate(MAX, MIN - 1), None);
    }

    #[test]
    fn a_follower_is_told_from_a_broken_connection() {
        assert!(is_not_leader(&not_leader()));
        assert!(!is_not_leader(&Status::unavailable("tcp connect error")));
    }
}
