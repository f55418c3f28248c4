//! Decides what to do about the Lease as it was last read. Pure: monotonic time is passed in, and the clock of another
//! machine is never compared with ours.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;

/// The version of the Lease that was read last, and how long it has not changed.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub resource_version: String,
    /// When this version was read first.
    pub since: Instant,
}

/// What a replica does about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAction {
    /// Renew it: this replica holds it.
    Renew,
    /// Take it: nobody holds it, or its holder has not renewed it for too long.
    Take,
    /// Wait: another replica holds it.
    Wait,
}

/// Decides from the Lease, the identity of this replica, and how long the Lease has not changed.
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
    fn a_lease_that_is_not_renewed_in_time_is_taken() {
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
