//! A policy of a later version, restricted by this one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

mod strategy;

use mcp_fleet_control::restrict::{Malformed, Restriction, restrict};
use mcp_fleet_control::{DecodeError, EncodedPolicy, decode, encode};
use mcp_fleet_policy::model::TenantPolicy;
use proptest::prelude::*;

/// Appends fields that this version does not know, as a later one may: a feature is known by its name, and the message has
/// a field with a higher number.
fn later(policy: &TenantPolicy) -> Vec<u8> {
    let mut bytes = encode(policy).bytes;
    // Field 900, a string.
    bytes.extend([0xa2, 0x38, 5]);
    bytes.extend(*b"later");
    bytes
}

/// Removes what [`later`] appended.
fn known(bytes: &[u8]) -> TenantPolicy {
    decode(&bytes[..bytes.len() - 8]).unwrap().policy
}

fn nothing(_: &str) -> Restriction {
    Restriction::default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn only_what_stops_calls_is_changed(policy in strategy::policy(), until in 0..i64::MAX, suspend: bool) {
        let bytes = later(&policy);
        prop_assert!(matches!(decode(&bytes), Err(DecodeError::NotUnderstood)));
        let generation = policy.generation + 1;
        let first = policy.principals.first().map(|principal| principal.uid.clone());
        let of = |uid: &str| {
            let is_first = first.as_deref() == Some(uid);
            Restriction { suspended: is_first && suspend, revoked_until: is_first.then_some(until) }
        };
        let mut wanted = policy.clone();
        for principal in wanted.principals.iter_mut().filter(|principal| Some(&principal.uid) == first.as_ref()) {
            principal.suspended |= suspend;
            principal.revoked_until = principal.revoked_until.max(Some(until));
        }
        let restricted = restrict(&bytes, generation, false, of).unwrap();
        if wanted == policy {
            prop_assert_eq!(restricted, None);
        } else {
            let EncodedPolicy { bytes: restricted, digest } = restricted.unwrap();
            prop_assert_eq!(digest, mcp_fleet_control::Digest::of(&restricted));
            wanted.generation = generation;
            prop_assert_eq!(known(&restricted), wanted);
            // The rest of it is in its canonical form still.
            prop_assert_eq!(restrict(&restricted, generation + 1, false, of).unwrap(), None);
        }
    }

    #[test]
    fn a_suspended_tenant_stays_suspended(policy in strategy::policy()) {
        let bytes = later(&policy);
        let suspended = restrict(&bytes, policy.generation + 1, true, nothing).unwrap();
        prop_assert_eq!(suspended.is_none(), policy.suspended);
        let suspended = suspended.map_or(bytes, |policy| policy.bytes);
        prop_assert!(known(&suspended).suspended);
        prop_assert_eq!(restrict(&suspended, policy.generation + 2, false, nothing).unwrap(), None);
    }
}

#[test]
fn what_is_not_a_message_is_refused() {
    for bytes in [&[0xff][..], &[0x72, 5, 1], &[0x70, 1], &[0x72, 2, 0x18, 1], &[0x0b]] {
        assert_eq!(restrict(bytes, 2, true, nothing), Err(Malformed), "{bytes:?}");
    }
}
