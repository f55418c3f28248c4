//! Revocations of tokens.

use jiff::Timestamp;

/// Returns the revocation that a `revokeIssuedBefore` requests: tokens with `iat` at or before this Unix second are
/// refused. A time in the future has no effect yet.
pub fn requested(revoke_issued_before: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    revoke_issued_before.filter(|time| *time <= now).map(Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_in_the_future_revokes_nothing() {
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(requested(Some(at("2026-11-22T12:00:01Z")), now), None);
        assert_eq!(requested(Some(now), now), Some(now.as_second()));
        assert_eq!(requested(None, now), None);
    }
}
