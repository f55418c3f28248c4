//! Tests of the own and the shared breaker of a tool.

use proptest::prelude::*;

use super::*;
use crate::model::SlowCalls;

const SETTINGS: Breaker = Breaker {
    error_percent: 50,
    slow_calls: None,
    minimum_calls: 4,
    open_for: Duration::from_secs(30),
    half_open_calls: 2,
};
const FAST: Duration = Duration::from_millis(1);

fn at(seconds: u64) -> Tick {
    Tick::ZERO.plus(Duration::from_secs(seconds))
}

/// A tool that several principals may call.
struct Tool(Arc<ToolBreaker>, Breaker);

impl Tool {
    fn new(settings: Breaker) -> Self {
        Self(Arc::default(), settings)
    }

    fn of(&self, principal: &str) -> CallerBreaker {
        CallerBreaker::new(Arc::clone(&self.0), principal, self.1)
    }

    /// Makes a call, unless it is refused.
    fn call(&self, now: Tick, principal: &str, end: CallEnd) -> Result<Changes, Denial> {
        let (pass, _) = self.of(principal).admit(now);
        Ok(self.of(principal).record(now, pass?, end, FAST))
    }

    fn calls(&self, now: Tick, principals: &[&str], end: CallEnd) {
        for principal in principals {
            drop(self.call(now, principal, end));
        }
    }

    fn retry(&self, now: Tick, principal: &str) -> Option<Duration> {
        self.of(principal).admit(now).0.err()?.retry_after
    }

    fn shared(&self) -> BreakerState {
        self.0.lock().shared.as_ref().map_or(BreakerState::Closed, |shared| match shared.cycle.phase() {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        })
    }
}

use CallEnd::{Answered, Cancelled, Failed};

#[test]
fn a_principals_failures_open_its_own_breaker_and_no_other() {
    let tool = Tool::new(SETTINGS);
    tool.calls(at(0), &["a"; 3], Failed);
    assert_eq!(tool.retry(at(0), "a"), None, "fewer calls than minimumCalls");
    let changes = tool.call(at(0), "a", Failed).unwrap();
    assert_eq!(changes, Changes { own: Some(BreakerState::Open), shared: None });
    let denial = tool.of("a").admit(at(10)).0.unwrap_err();
    assert_eq!((denial.reason, denial.retry_after), (Reason::BreakerOpen, Some(Duration::from_secs(20))));
    assert_eq!(denial.limit.as_deref(), Some(OWN_LIMIT));
    assert_eq!(tool.retry(at(10), "b"), None);
}

#[test]
fn a_share_of_failures_below_the_limit_opens_nothing() {
    let tool = Tool::new(SETTINGS);
    for _ in 0..10 {
        tool.calls(at(0), &["a"; 3], Answered);
        tool.calls(at(0), &["a"], Failed);
    }
    assert_eq!(tool.retry(at(0), "a"), None);
}

#[test]
fn failures_that_two_principals_saw_open_the_breaker_for_all() {
    let tool = Tool::new(SETTINGS);
    tool.calls(at(0), &["a", "b", "a"], Failed);
    let changes = tool.call(at(0), "b", Failed).unwrap();
    assert_eq!(changes.shared, Some(BreakerState::Open));
    let denial = tool.of("c").admit(at(1)).0.unwrap_err();
    assert_eq!((denial.limit.as_deref(), denial.retry_after), (Some(SHARED_LIMIT), Some(Duration::from_secs(29))));
    // A caller that waits for the given time is let through.
    assert_eq!(tool.retry(at(30), "c"), None);
}

#[test]
fn one_failure_of_another_principal_does_not_lend_weight_to_an_attacker() {
    let tool = Tool::new(Breaker { minimum_calls: 20, ..SETTINGS });
    // Most calls of others are answered, but one of them failed.
    tool.calls(at(0), &["b"], Failed);
    tool.calls(at(0), &["b"; 9], Answered);
    tool.calls(at(0), &["a"; 40], Failed);
    assert_eq!(tool.shared(), BreakerState::Closed);
    // Nor if the others hardly call.
    let tool = Tool::new(Breaker { minimum_calls: 20, ..SETTINGS });
    tool.calls(at(0), &["b"], Failed);
    tool.calls(at(0), &["a"; 40], Failed);
    assert_eq!(tool.shared(), BreakerState::Closed);
}

#[test]
fn calls_that_succeed_do_not_hide_what_others_see() {
    let tool = Tool::new(Breaker { minimum_calls: 8, ..SETTINGS });
    for round in 0..4 {
        tool.calls(at(round), &["b", "c", "d"], Failed);
        tool.calls(at(round), &["a"; 50], Answered);
    }
    assert_eq!(tool.shared(), BreakerState::Open);
}

#[test]
fn a_half_open_breaker_closes_after_enough_answers_and_opens_after_a_failure() {
    let tool = Tool::new(SETTINGS);
    tool.calls(at(0), &["a"; 4], Failed);
    assert_eq!(tool.call(at(30), "a", Answered).unwrap().own, None);
    assert_eq!(tool.call(at(30), "a", Failed).unwrap().own, Some(BreakerState::Open));
    assert_eq!(tool.retry(at(31), "a"), Some(Duration::from_secs(29)));
    tool.calls(at(60), &["a"], Answered);
    assert_eq!(tool.call(at(60), "a", Answered).unwrap().own, Some(BreakerState::Closed));
    // The failures from before count no more.
    tool.calls(at(61), &["a"; 3], Failed);
    assert_eq!(tool.retry(at(61), "a"), None);
}

/// Opens the shared breaker at zero, with two principals that do not call afterwards.
fn opened(settings: Breaker) -> Tool {
    let tool = Tool::new(settings);
    tool.calls(at(0), &["x", "y"].repeat(usize::try_from(settings.minimum_calls).unwrap()), Failed);
    assert_eq!(tool.shared(), BreakerState::Open);
    tool
}

#[test]
fn a_principal_has_one_probe_at_a_time_and_its_end_frees_the_place() {
    let tool = opened(SETTINGS);
    let (first, _) = tool.of("a").admit(at(30));
    let first = first.unwrap();
    assert_eq!(tool.retry(at(30), "a"), Some(PROBE_RETRY));
    let second = tool.of("b").admit(at(30)).0.unwrap();
    assert_eq!(tool.retry(at(30), "c"), Some(PROBE_RETRY), "both places are taken");
    // A probe that is denied later.
    drop(first);
    let third = tool.of("c").admit(at(30)).0.unwrap();
    assert_eq!(tool.retry(at(30), "d"), Some(PROBE_RETRY));
    // A probe that is cancelled.
    assert_eq!(tool.of("b").record(at(31), second, Cancelled, FAST), Changes::default());
    assert_eq!(tool.retry(at(31), "d"), None);
    drop(third);
}

#[test]
fn a_single_principal_cannot_keep_the_shared_breaker_open() {
    let tool = opened(SETTINGS);
    // Its probe fails, and hinders only itself.
    assert_eq!(tool.call(at(30), "a", Failed).unwrap(), Changes { own: Some(BreakerState::Open), shared: None });
    assert_eq!(tool.retry(at(30), "a"), Some(Duration::from_secs(30)));
    // Not even with a probe that hangs, while another principal probes.
    let hanging = tool.of("m").admit(at(30)).0.unwrap();
    assert_eq!(tool.call(at(31), "b", Answered).unwrap().shared, None);
    assert_eq!(tool.call(at(31), "b", Answered).unwrap().shared, Some(BreakerState::Closed));
    drop(hanging);
}

#[test]
fn probes_of_two_principals_that_fail_open_the_breaker_again() {
    let tool = opened(SETTINGS);
    tool.calls(at(30), &["a"], Failed);
    assert_eq!(tool.call(at(30), "b", Failed).unwrap().shared, Some(BreakerState::Open));
    assert_eq!(tool.retry(at(40), "c"), Some(Duration::from_secs(20)));
}

#[test]
fn the_result_of_a_late_probe_shows_nothing() {
    let tool = opened(SETTINGS);
    let late = tool.of("a").admit(at(30)).0.unwrap();
    tool.calls(at(30), &["b"], Failed);
    tool.calls(at(30), &["c"], Failed);
    assert_eq!(tool.shared(), BreakerState::Open);
    let probe = tool.of("d").admit(at(60)).0.unwrap();
    assert_eq!(tool.retry(at(60), "e"), Some(PROBE_RETRY), "the late probe still has its place");
    assert_eq!(tool.of("a").record(at(60), late, Answered, FAST).shared, None);
    assert_eq!(tool.of("d").record(at(60), probe, Answered, FAST).shared, None, "only one probe was answered");
    assert_eq!(tool.call(at(60), "e", Answered).unwrap().shared, Some(BreakerState::Closed));
}

#[test]
fn slow_calls_open_only_the_own_breaker() {
    let slow_calls = Some(SlowCalls { percent: 100, duration: Duration::from_secs(2) });
    let tool = Tool::new(Breaker { slow_calls, ..SETTINGS });
    let call = |principal, end, millis| {
        let pass = tool.of(principal).admit(at(0)).0.unwrap();
        tool.of(principal).record(at(0), pass, end, Duration::from_millis(millis)).own
    };
    for principal in ["a", "b"] {
        for _ in 0..3 {
            assert_eq!(call(principal, Answered, 2000), None);
        }
    }
    // Cancelling does not hide that a call was slow, and a quick cancellation shows nothing.
    assert_eq!(call("a", Cancelled, 1999), None);
    assert_eq!(call("a", Cancelled, 2000), Some(BreakerState::Open));
    assert_eq!(call("b", Answered, 1999), None);
    assert_eq!(tool.shared(), BreakerState::Closed);
    assert_eq!(tool.retry(at(0), "b"), None);
}

#[test]
fn a_person_can_clear_a_principals_breaker() {
    let tool = Tool::new(SETTINGS);
    tool.calls(at(0), &["a"; 4], Failed);
    assert_eq!(tool.0.clear("b"), Changes::default());
    assert_eq!(tool.0.clear("a").own, Some(BreakerState::Closed));
    assert_eq!(tool.retry(at(0), "a"), None);
}

#[test]
fn old_calls_and_idle_state_are_forgotten() {
    let breakers = Breakers::default();
    let key = ToolKey { server_uid: "s".into(), server: "files".into(), tool: "read".into() };
    let tool = Tool(breakers.tool(key.clone()), SETTINGS);
    assert!(Arc::ptr_eq(&tool.0, &breakers.tool(key.clone())));
    tool.calls(at(0), &["a"; 3], Failed);
    tool.calls(at(600), &["a"; 3], Failed);
    assert_eq!(tool.retry(at(600), "a"), None, "calls of ten minutes ago count");
    tool.calls(at(600), &["b", "c", "b", "c"], Failed);
    let sweep = |seconds| {
        let mut changes = Vec::new();
        breakers.sweep(at(seconds), |key, swept| changes.push((key.tool.clone(), swept)));
        changes
    };
    assert_eq!(sweep(601), []);
    assert_eq!(sweep(630), [("read".to_owned(), Swept::HalfOpened)]);
    assert_eq!(sweep(1229), []);
    assert!(!tool.0.is_untroubled());
    assert_eq!(sweep(1230), [("read".to_owned(), Swept::Forgotten { closed: true })]);
    assert!(tool.0.is_untroubled());
    drop(tool);
    assert_eq!(sweep(1231), []);
    assert!(breakers.lock().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Admit(usize),
    /// Ends the call that was admitted as the nth of those in flight.
    End(usize, CallEnd),
    Abandon(usize),
}

fn steps(principals: usize) -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![2 => Just(Answered), 4 => Just(Failed), 1 => Just(Cancelled)];
    let step = prop_oneof![
        1 => (1..40_u64).prop_map(Step::Wait),
        6 => (0..principals).prop_map(Step::Admit),
        6 => (0..8_usize, end).prop_map(|(call, end)| Step::End(call, end)),
        1 => (0..8_usize).prop_map(Step::Abandon),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn probes_never_exceed_their_limit_and_all_places_become_free(steps in steps(5), minimum_calls in 2..6_u32) {
        let tool = Tool::new(Breaker { minimum_calls, ..SETTINGS });
        let names = ["a", "b", "c", "d", "e"];
        let mut in_flight: Vec<(&str, Pass)> = Vec::new();
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Wait(seconds) => now = now.plus(Duration::from_secs(seconds)),
                Step::Admit(principal) => {
                    let principal = names[principal];
                    if let Ok(pass) = tool.of(principal).admit(now).0 {
                        in_flight.push((principal, pass));
                    }
                }
                Step::End(call, end) if call < in_flight.len() => {
                    let (principal, pass) = in_flight.swap_remove(call);
                    let _ = tool.of(principal).record(now, pass, end, FAST);
                }
                Step::Abandon(call) if call < in_flight.len() => drop(in_flight.swap_remove(call)),
                Step::End(..) | Step::Abandon(_) => {}
            }
            let probes: Vec<_> = in_flight.iter().filter_map(|(name, pass)| Some((*name, pass.0.as_ref()?))).collect();
            let of_all: Vec<_> = probes.iter().filter(|(_, probe)| probe.shared.is_some()).map(|(name, _)| *name).collect();
            prop_assert!(of_all.len() <= 2, "{of_all:?}");
            for name in names {
                prop_assert!(of_all.iter().filter(|other| **other == name).count() <= 1);
                let own = probes.iter().filter(|(other, probe)| *other == name && probe.own.is_some()).count();
                prop_assert!(own <= 2, "{own} probes of {name}");
            }
        }
        in_flight.clear();
        let state = tool.0.lock();
        prop_assert!(state.shared.as_ref().is_none_or(|shared| shared.probing.is_empty()));
        prop_assert!(state.own.values().all(|own| own.probes == 0));
    }

    #[test]
    fn a_single_principal_never_opens_the_breaker_for_others(
        attack in steps(1), answered in prop::collection::vec(0..400_usize, 0..100), minimum_calls in 2..10_u32,
    ) {
        let tool = Tool::new(Breaker { minimum_calls, ..SETTINGS });
        let mut in_flight = Vec::new();
        let mut now = at(0);
        for (index, step) in attack.into_iter().enumerate() {
            match step {
                Step::Wait(seconds) => now = now.plus(Duration::from_secs(seconds)),
                Step::Admit(_) => in_flight.extend(tool.of("attacker").admit(now).0.ok()),
                Step::End(call, end) if call < in_flight.len() => {
                    let _ = tool.of("attacker").record(now, in_flight.swap_remove(call), end, FAST);
                }
                Step::Abandon(call) if call < in_flight.len() => drop(in_flight.swap_remove(call)),
                Step::End(..) | Step::Abandon(_) => {}
            }
            // The others only see calls that are answered.
            let others = if answered.contains(&index) { ["b", "c"].as_slice() } else { &[] };
            for other in others {
                prop_assert!(tool.call(now, other, Answered).is_ok());
            }
            prop_assert_eq!(tool.shared(), BreakerState::Closed);
            prop_assert_eq!(tool.0.status(now, "d"), None);
        }
    }
}
