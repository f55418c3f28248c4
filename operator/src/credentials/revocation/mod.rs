//! Revocations that hold for ever: the highest `revokeIssuedBefore` that each principal ever had.
//!
//! They are kept in one ConfigMap per tenant in the operator's namespace, out of the tenant's reach and outside
//! status: going back in Git, or patching a status, does not make a revoked token good again.

mod store;

pub(crate) use store::{RevocationError, Revocations};

use jiff::Timestamp;

/// What a `revokeIssuedBefore` means now: tokens with `iat` at or before this Unix second are refused. A time in the
/// future means nothing yet.
pub(crate) fn asked(revoke_issued_before: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    revoke_issued_before.filter(|asked| *asked <= now).map(Timestamp::as_second)
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
        assert_eq!(asked(Some(at("2026-11-22T12:00:01Z")), now), None);
        assert_eq!(asked(Some(now), now), Some(now.as_second()));
        assert_eq!(asked(None, now), None);
    }
}
