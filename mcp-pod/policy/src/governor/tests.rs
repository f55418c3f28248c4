//! Tests of the limits of principal, tenant and server together.

use proptest::prelude::*;

use super::*;
use crate::class::Class;
use crate::testing;

fn seconds(seconds: u64) -> Tick {
    Tick::ZERO.plus(Duration::from_secs(seconds))
}

fn limits(calls_per_minute: u32, burst: u32, max_concurrent_calls: u32) -> PrincipalLimits {
    PrincipalLimits {
        calls_per_minute: Some(calls_per_minute),
        burst: Some(burst),
        max_concurrent_calls: Some(max_concurrent_calls),
    }
}

fn governor(change: impl FnOnce(&mut TenantPolicy)) -> (Governor, TenantPolicy) {
    let mut policy = testing::policy();
    change(&mut policy);
    let governor = Governor::new();
    governor.apply(Tick::ZERO, &policy);
    (governor, policy)
}

fn call(governor: &Governor, now: Tick) -> Result<Permit, Reason> {
    governor.admit(now, "p-coder", "s-files").map_err(|denial| denial.reason)
}

/// Returns how many consecutive calls are admitted.
fn burst(governor: &Governor, now: Tick) -> usize {
    (0..1000).take_while(|_| call(governor, now).is_ok()).count()
}

#[test]
fn a_bucket_starts_with_one_token_and_fills_to_its_burst() {
    let (governor, _) = governor(|policy| policy.principals[0].limits = limits(60, 10, 99));
    assert_eq!(burst(&governor, seconds(0)), 1);
    assert_eq!(burst(&governor, seconds(3)), 3);
    assert_eq!(burst(&governor, seconds(1000)), 10);
    let denial = governor.admit(seconds(1000), "p-coder", "s-files").unwrap_err();
    assert_eq!(denial.reason, Reason::RateLimited);
    assert_eq!(denial.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(denial.limit.as_deref(), Some("this principal may make 60 calls a minute, 10 at once"));
}

#[test]
fn a_caller_that_waits_for_the_given_time_is_admitted() {
    let (governor, _) = governor(|policy| policy.principals[0].limits = limits(7, 1, 99));
    assert_eq!(burst(&governor, seconds(0)), 1);
    let wait = governor.admit(seconds(3), "p-coder", "s-files").unwrap_err().retry_after.unwrap();
    assert!(call(&governor, seconds(3).plus(wait)).is_ok());
}

#[test]
fn a_rate_of_zero_admits_no_call() {
    let (governor, _) = governor(|policy| policy.principals[0].limits = limits(0, 5, 99));
    assert_eq!(burst(&governor, seconds(100)), 0);
}

#[test]
fn calls_in_flight_are_counted_until_their_permit_is_dropped() {
    let (governor, _) = governor(|policy| policy.principals[0].limits.max_concurrent_calls = Some(2));
    let one = call(&governor, seconds(0)).unwrap();
    let _two = call(&governor, seconds(0)).unwrap();
    assert_eq!(call(&governor, seconds(0)).unwrap_err(), Reason::ConcurrencyLimited);
    drop(one);
    assert!(call(&governor, seconds(0)).is_ok());
}

#[test]
fn a_refusal_by_a_later_limit_takes_nothing_from_earlier_ones() {
    let (governor, _) = governor(|policy| {
        policy.principals[0].limits = limits(60, 10, 99);
        policy.servers[0].limits.max_concurrent_calls = 1;
        policy.traffic = TenantLimits { calls_per_minute: Some(6000), max_concurrent_calls: Some(5) };
    });
    let in_flight = call(&governor, seconds(100)).unwrap();
    for _ in 0..50 {
        assert_eq!(call(&governor, seconds(100)).unwrap_err(), Reason::ServerConcurrencyLimited);
    }
    drop(in_flight);
    assert_eq!(burst(&governor, seconds(100)), 9);
}

#[test]
fn tenant_limits_cover_all_principals() {
    let (governor, _) = governor(|policy| {
        policy.principals.push(testing::principal("other"));
        policy.traffic = TenantLimits { calls_per_minute: Some(12), max_concurrent_calls: Some(1) };
    });
    let in_flight = governor.admit(seconds(60), "p-other", "s-files").unwrap();
    assert_eq!(call(&governor, seconds(60)).unwrap_err(), Reason::TenantConcurrencyLimited);
    drop(in_flight);
    drop(call(&governor, seconds(60)).unwrap());
    assert_eq!(call(&governor, seconds(60)).unwrap_err(), Reason::TenantRateLimited);
}

/// Makes calls of a principal on the server with that UID until one is refused. Returns the permits and the reason.
fn fill(governor: &Governor, principal: &str, server: &str) -> (Vec<Permit>, Denial) {
    let mut permits = Vec::new();
    loop {
        match governor.admit(seconds(0), principal, server) {
            Ok(permit) => permits.push(permit),
            Err(denial) => return (permits, denial),
        }
    }
}

/// Changes the default policy to two principals with a scope on a server that may have `max` calls in flight.
fn shared_server(policy: &mut TenantPolicy, max: u32) {
    policy.servers[0].limits.max_concurrent_calls = max;
    policy.principals.push(testing::principal("other"));
    for principal in &mut policy.principals {
        principal.grants =
            ["one", "two"].map(|scope| Arc::new(testing::grant(scope, vec![], Class::ALL.to_vec()))).to_vec();
    }
}

#[test]
fn one_of_several_principals_may_use_half_of_a_server() {
    for (max, half) in [(16, 8), (5, 3), (2, 1), (1, 1)] {
        let (governor, _) = governor(|policy| shared_server(policy, max));
        let (mine, denial) = fill(&governor, "p-coder", "s-files");
        // The half of one call is all of it.
        let reason = if max == 1 { Reason::ServerConcurrencyLimited } else { Reason::ConcurrencyLimited };
        assert_eq!((mine.len(), denial.reason), (half, reason));
        let (others, _) = fill(&governor, "p-other", "s-files");
        assert_eq!(others.len(), max as usize - half, "the other principal gets what is left");
        drop(others);
        assert_eq!(fill(&governor, "p-coder", "s-files").0.len(), 0, "what others leave is not for one principal");
        drop(mine);
        assert_eq!(fill(&governor, "p-coder", "s-files").0.len(), half);
    }
}

#[test]
fn a_refusal_names_the_share_and_the_limit() {
    let (governor, _) = governor(|policy| shared_server(policy, 16));
    let (_permits, denial) = fill(&governor, "p-coder", "s-files");
    let limit =
        "this principal may have 8 of the server's 16 calls in flight, because other principals may call it too";
    assert_eq!((denial.limit.as_deref(), denial.retry_after), (Some(limit), Some(SLOT_RETRY)));
}

#[test]
fn the_only_principal_of_a_server_may_use_all_of_it() {
    let (governor, _) = governor(|policy| {
        shared_server(policy, 16);
        policy.principals[1].grants.clear();
    });
    let (permits, denial) = fill(&governor, "p-coder", "s-files");
    assert_eq!((permits.len(), denial.reason), (16, Reason::ServerConcurrencyLimited));
}

#[test]
fn a_share_is_counted_per_server_and_below_the_principals_own_limit() {
    let (governor, mut policy) = governor(|policy| {
        shared_server(policy, 4);
        policy.servers.push(testing::server("mail", vec![]));
        policy.principals[0].limits.max_concurrent_calls = Some(3);
    });
    let (files, denial) = fill(&governor, "p-coder", "s-files");
    assert_eq!((files.len(), denial.reason), (2, Reason::ConcurrencyLimited));
    let (mail, denial) = fill(&governor, "p-coder", "s-mail");
    assert_eq!((mail.len(), denial.reason), (1, Reason::ConcurrencyLimited));
    assert_eq!(denial.limit.as_deref(), Some("this principal may have 3 calls in flight"));
    // Calls in flight stay when the share becomes smaller.
    drop(mail);
    policy.servers[0].limits.max_concurrent_calls = 2;
    governor.apply(seconds(0), &policy);
    for in_flight in files {
        assert_eq!(fill(&governor, "p-coder", "s-files").0.len(), 0);
        drop(in_flight);
    }
    assert_eq!(fill(&governor, "p-coder", "s-files").0.len(), 1);
}

#[test]
fn an_undone_permit_gives_its_tokens_back() {
    let (governor, _) = governor(|policy| policy.principals[0].limits = limits(60, 1, 1));
    for _ in 0..5 {
        call(&governor, seconds(0)).unwrap().refund();
    }
    drop(call(&governor, seconds(0)).unwrap());
    assert_eq!(call(&governor, seconds(0)).unwrap_err(), Reason::RateLimited);
}

#[test]
fn a_new_policy_changes_limits_and_keeps_usage() {
    let (governor, mut policy) = governor(|policy| policy.principals[0].limits = limits(60, 10, 2));
    let in_flight = call(&governor, seconds(100)).unwrap();
    policy.principals[0].limits = limits(60, 20, 1);
    governor.apply(seconds(100), &policy);
    assert_eq!(call(&governor, seconds(100)).unwrap_err(), Reason::ConcurrencyLimited);
    drop(in_flight);
    assert_eq!(burst(&governor, seconds(100)), 9);
    // A principal that was removed and added again starts with one token.
    let principals = std::mem::take(&mut policy.principals);
    governor.apply(seconds(500), &policy);
    assert_eq!(call(&governor, seconds(500)).unwrap_err(), Reason::PrincipalUnknown);
    policy.principals = principals;
    governor.apply(seconds(500), &policy);
    assert_eq!(burst(&governor, seconds(500)), 1);
}

proptest! {
    #[test]
    fn no_interval_admits_more_than_the_burst_and_its_refill(
        per_minute in 1..600_u32,
        size in 1..20_u32,
        steps in prop::collection::vec(0..5_000_u64, 1..200),
    ) {
        let mut bucket = Bucket::new(Tick::ZERO, Rate::new(per_minute, Some(size)));
        let mut now = Tick::ZERO;
        let mut taken = Vec::new();
        for step in steps {
            now = now.plus(Duration::from_millis(step));
            if bucket.check(now).is_ok() {
                bucket.take();
                taken.push(now);
            }
        }
        for (first, start) in taken.iter().enumerate() {
            for (last, end) in taken.iter().enumerate().skip(first) {
                let calls = u128::from((last - first + 1) as u64) * 60_000_000_000;
                let refilled = end.since(*start).as_nanos() * u128::from(per_minute);
                let allowed = u128::from(size) * 60_000_000_000 + refilled;
                prop_assert!(calls <= allowed);
            }
        }
    }
}

#[test]
fn requests_that_are_not_admitted_calls_have_their_own_allowance() {
    let (governor, policy) = governor(|policy| policy.principals[0].limits = limits(6000, 10, 99));
    let (one, other) = (&policy.principals[0].uid, "p-nobody");
    // An admitted call gives back what its request took.
    for _ in 0..10 {
        assert_eq!(governor.check_request(seconds(1), one), Ok(()));
        assert!(call(&governor, seconds(1)).is_ok());
    }
    for _ in 0..3000 {
        assert_eq!(governor.check_request(seconds(1), one), Ok(()));
    }
    let denial = governor.check_request(seconds(1), one).unwrap_err();
    assert_eq!((denial.reason, denial.retry_after), (Reason::RateLimited, Some(Duration::from_millis(10))));
    assert_eq!(governor.check_request(seconds(1), other), Ok(()));
    // A caller that waits for the given time is read again.
    assert_eq!(governor.check_request(seconds(1).plus(Duration::from_millis(10)), one), Ok(()));
    // A call that another gateway has admitted.
    governor.give_back_request(one);
    governor.give_back_request(other);
    let soon = seconds(1).plus(Duration::from_millis(10));
    assert_eq!(governor.check_request(soon, one), Ok(()));
    assert!(governor.check_request(soon, one).is_err(), "it gave back more than was taken");
    // A call that is refused for its budget does not count as admitted.
    let later = seconds(1).plus(Duration::from_millis(20));
    assert_eq!(governor.check_request(later, one), Ok(()));
    call(&governor, seconds(1000)).unwrap().refund();
    assert!(governor.check_request(later, one).is_err());
}

#[test]
fn a_built_in_tool_takes_a_token_and_no_place() {
    let (governor, _) = governor(|policy| {
        policy.principals[0].limits = limits(60, 3, 1);
        policy.principals.push(testing::principal("other"));
    });
    let now = seconds(100);
    let in_flight = call(&governor, now).unwrap();
    let standing = governor.standing(now, "p-coder").unwrap();
    let rate = RateStanding { per_minute: 60, burst: 3, left: 2 };
    assert_eq!(standing, Standing { rate: Some(rate), max_in_flight: Some(1), in_flight: 1 });
    for _ in 0..2 {
        assert_eq!(governor.admit_built_in(now, "p-coder", Counts::Once), Ok(()));
    }
    let denial = governor.admit_built_in(now, "p-coder", Counts::Once).unwrap_err();
    assert_eq!((denial.reason, denial.retry_after), (Reason::RateLimited, Some(Duration::from_secs(1))));
    assert_eq!(governor.standing(now, "p-other").unwrap().rate, None, "it sees nothing of others");
    assert_eq!(governor.admit_built_in(now, "p-nobody", Counts::Once).unwrap_err().reason, Reason::PrincipalUnknown);
    drop(in_flight);
}
