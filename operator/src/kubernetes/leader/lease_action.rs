//! What to do about the Lease as it was last read. Pure: clocks are monotonic and passed in, and no clock of another
//! machine is ever compared with ours.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;

/// A Lease, and since when it has been seen unchanged.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The version that was seen.
    pub resource_version: String,
    /// When that version was seen first.
    pub since: Instant,
}

/// What a replica does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAction {
    /// It is ours: renew it.
    Renew,
    /// Nobody holds it, or its holder has been silent for too long: take it.
    Take,
    /// Another holds it: wait.
    Wait,
}

/// Decides from the Lease, who we are, and how long it has been unchanged.
pub(super) fn decide(lease: &Lease, identity: &str, observed: &Observed, now: Instant) -> LeaseAction {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or("");
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    if holder == identity {
        LeaseAction::Renew
    } else if holder.is_empty() || now.duration_since(observed.since) > Duration::from_secs(seconds) {
        LeaseAction::Take
    } else {
        LeaseAction::Wait
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    fn lease(holder: &str) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(6),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    fn seen(ago: Duration) -> (Observed, Instant) {
        let now = Instant::now() + Duration::from_mins(1);
        (Observed { resource_version: "1".into(), since: now.checked_sub(ago).unwrap() }, now)
    }

    #[test]
    fn a_holder_that_renews_is_left_alone() {
        let (observed, now) = seen(Duration::from_secs(5));
        assert_eq!(decide(&lease("b"), "a", &observed, now), LeaseAction::Wait);
    }

    #[test]
    fn a_holder_that_is_silent_for_longer_than_the_lease_is_succeeded() {
        let (observed, now) = seen(Duration::from_secs(7));
        assert_eq!(decide(&lease("b"), "a", &observed, now), LeaseAction::Take);
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let (observed, now) = seen(Duration::ZERO);
        assert_eq!(decide(&lease(""), "a", &observed, now), LeaseAction::Take);
    }

    #[test]
    fn our_own_lease_is_renewed() {
        let (observed, now) = seen(Duration::from_secs(20));
        assert_eq!(decide(&lease("a"), "a", &observed, now), LeaseAction::Renew);
    }
}
