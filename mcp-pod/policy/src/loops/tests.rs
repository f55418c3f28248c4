#![allow(clippy::unwrap_used)]

use super::*;
use crate::json::{Limits, parse};

const AGENT: &str = "agent-uid";

/// A detector with a clock, and the calls of an agent.
struct Bench {
    loops: Loops,
    now: Tick,
    settings: LoopSettings,
    polls: Polls,
}

/// What happened to a call.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Quiet,
    Warned(Evidence),
    Refused(Evidence),
}

impl Outcome {
    fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl Bench {
    fn new() -> Self {
        Self { loops: Loops::new(), now: Tick::ZERO, settings: LoopSettings::DEFAULT, polls: Polls::Limited }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    fn key(&self, tool: &str, arguments: &str) -> CallKey {
        self.loops.key("server-uid", tool, Some(&parse(arguments.as_bytes(), &Limits::REQUEST).unwrap()))
    }

    /// Makes a call that takes 100 ms. A tool whose name begins with `write` may change something.
    fn call(&mut self, tool: &str, arguments: &str, text: &str, is_error: bool) -> Outcome {
        let key = self.key(tool, arguments);
        if let Err(evidence) = self.loops.check(self.now, AGENT, self.settings.mode, key) {
            return Outcome::Refused(evidence);
        }
        let admitted = self.now;
        self.wait(Duration::from_millis(99));
        let outcome = self.settle(key, arguments, text, is_error, admitted, tool.starts_with("write"));
        self.wait(Duration::from_millis(1));
        outcome
    }

    fn settle(
        &self,
        key: CallKey,
        arguments: &str,
        text: &str,
        is_error: bool,
        admitted: Tick,
        changes: bool,
    ) -> Outcome {
        let result = serde_json::json!({"content": [{"type": "text", "text": text}]}).to_string();
        let result = self.loops.fingerprint(result.as_bytes(), arguments.as_bytes(), is_error);
        let settled = Settled { key, result, admitted, changes, polls: self.polls };
        match self.loops.settle(self.now, AGENT, &self.settings, &settled) {
            Some(evidence) => Outcome::Warned(evidence),
            None => Outcome::Quiet,
        }
    }

    /// Makes calls, a second apart, until one is refused. Returns how many were made.
    fn until_refused(&mut self, limit: u32, mut call: impl FnMut(&mut Self, u32) -> Outcome) -> Option<u32> {
        (0..limit).find(|number| {
            self.wait(Duration::from_secs(1));
            call(self, *number).is_refused()
        })
    }
}

fn failure(bench: &mut Bench) -> Outcome {
    bench.call("read", r#"{"path":"a"}"#, "permission denied", true)
}

#[test]
fn the_state_of_a_principal_fits_into_4_kib() {
    assert!(size_of::<Mutex<State>>() <= 4096, "{} bytes", size_of::<Mutex<State>>());
}

#[test]
fn a_repeated_failure_is_warned_about_then_slowed_down_then_refused_for_the_cool_down() {
    let mut bench = Bench::new();
    let mut seen = Vec::new();
    for _ in 0..8 {
        bench.wait(Duration::from_secs(50));
        seen.push(failure(&mut bench));
    }
    assert!(seen[..3].iter().all(|outcome| *outcome == Outcome::Quiet), "{seen:?}");
    let waits: Vec<u64> = seen[3..]
        .iter()
        .map(|outcome| match outcome {
            Outcome::Warned(evidence) => evidence.wait.as_secs(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(waits, [0, 1, 2, 4, 120]);
    let refused = failure(&mut bench);
    assert!(
        matches!(refused, Outcome::Refused(Evidence { kind: Kind::Retry, count: 8, refused: true, .. })),
        "{refused:?}"
    );
}

#[test]
fn a_caller_that_waits_as_long_as_it_is_told_is_admitted() {
    let mut bench = Bench::new();
    let refused = bench.until_refused(100, |bench, _| failure(bench));
    assert!(refused.is_some());
    let Outcome::Refused(evidence) = failure(&mut bench) else { panic!("admitted") };
    bench.wait(evidence.wait.saturating_sub(Duration::from_nanos(1)));
    assert!(failure(&mut bench).is_refused());
    let Outcome::Refused(evidence) = failure(&mut bench) else { panic!("admitted") };
    bench.wait(evidence.wait);
    assert!(!failure(&mut bench).is_refused());
}

#[test]
fn a_loop_that_is_slower_than_the_cool_down_is_refused() {
    let mut bench = Bench::new();
    let refused = (0..20).find(|_| {
        bench.wait(Duration::from_secs(200));
        failure(&mut bench).is_refused()
    });
    assert!(refused.is_some_and(|calls| calls <= 10), "{refused:?}");
}

#[test]
fn a_poller_that_obeys_is_never_refused() {
    for text in ["status: pending", "[]", "3 users", "nothing special"] {
        let mut bench = Bench::new();
        for poll in 0..500 {
            match bench.call("poll", "{}", text, false) {
                Outcome::Refused(evidence) => panic!("{text}: poll {poll}: {evidence:?}"),
                Outcome::Warned(evidence) => bench.wait(evidence.wait),
                Outcome::Quiet => {}
            }
            bench.wait(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_poller_that_does_not_obey_is_refused() {
    let mut bench = Bench::new();
    assert!(bench.until_refused(20, |bench, _| bench.call("poll", "{}", "3 users", false)).is_some());
    let outcomes: Vec<_> = (0..3).map(|_| bench.call("poll", "{}", "3 users", false)).collect();
    let Outcome::Refused(last) = outcomes[2] else { panic!("{outcomes:?}") };
    assert!(last.refused && last.wait > Duration::from_secs(100), "three calls too early end in a refusal: {last:?}");
}

#[test]
fn polls_can_be_tolerated_but_not_failures() {
    let mut bench = Bench { polls: Polls::Tolerated, ..Bench::new() };
    for _ in 0..200 {
        assert_eq!(bench.call("poll", "{}", "3 users", false), Outcome::Quiet);
    }
    assert!(bench.until_refused(20, |bench, _| failure(bench)).is_some());
}

#[test]
fn identical_calls_whose_results_change_are_only_warned_about_and_only_in_a_storm() {
    let mut bench = Bench::new();
    for poll in 0..200 {
        bench.wait(Duration::from_secs(2));
        assert_eq!(bench.call("poll", "{}", &format!("row {poll}"), false), Outcome::Quiet);
    }
    let mut warned = 0;
    for poll in 200..400 {
        match bench.call("poll", "{}", &format!("row {poll}"), false) {
            Outcome::Warned(Evidence { kind: Kind::Storm, wait: Duration::ZERO, .. }) => warned += 1,
            outcome => assert_eq!(outcome, Outcome::Quiet),
        }
    }
    assert!(warned > 100);
}

#[test]
fn an_argument_that_changes_each_time_hides_no_loop() {
    let mut failing = Bench::new();
    let call = |bench: &mut Bench, number| {
        bench.call("fetch", &format!(r#"{{"url":"x","nonce":{number}}}"#), "502 Bad Gateway", true)
    };
    assert!(failing.until_refused(12, call).is_some());
    let mut useless = Bench::new();
    let call = |bench: &mut Bench, number| {
        bench.call("list", &format!(r#"{{"page":{number}}}"#), "one two three four five six", false)
    };
    assert!(useless.until_refused(14, call).is_some());
    let mut short = Bench::new();
    let call = |bench: &mut Bench, number| bench.call("list", &format!(r#"{{"page":{number}}}"#), "a b", false);
    assert!(short.until_refused(20, call).is_none(), "different questions can have one short answer");
    assert!(short.until_refused(40, |bench, number| call(bench, number + 20)).is_some());
}

#[test]
fn rotating_tools_hides_no_loop() {
    let mut bench = Bench::new();
    let refused = bench.until_refused(60, |bench, number| {
        let tool = ["a", "b", "c", "d", "e", "f", "g"][(number * number) as usize % 7];
        bench.call(tool, "{}", "the same as before", false)
    });
    assert!(refused.is_some());
}

#[test]
fn the_order_of_arguments_does_not_matter() {
    let bench = Bench::new();
    assert_eq!(bench.key("t", r#"{"a":1,"b":{"c":[],"d":""}}"#), bench.key("t", r#"{"b":{"d":"","c":[]},"a":1}"#));
    assert_ne!(bench.key("t", r#"{"a":1,"b":2}"#), bench.key("t", r#"{"a":2,"b":1}"#));
    assert_eq!(bench.key("t", "{}"), bench.loops.key("server-uid", "t", None));
}

#[test]
fn a_new_result_ends_the_loop() {
    let mut bench = Bench::new();
    assert!(bench.until_refused(100, |bench, _| failure(bench)).is_some());
    bench.wait(Duration::from_hours(1));
    assert_eq!(bench.call("read", r#"{"path":"a"}"#, "# Text", false), Outcome::Quiet);
    assert_eq!(bench.call("read", r#"{"path":"b"}"#, "# Other", false), Outcome::Quiet);
    for _ in 0..3 {
        assert_eq!(failure(&mut bench), Outcome::Quiet);
    }
}

#[test]
fn a_state_that_moves_is_no_loop() {
    let mut bench = Bench::new();
    for deployment in 0..10 {
        bench.call(
            "write",
            &format!(r#"{{"n":{deployment}}}"#),
            "deployment submitted to the queue of this cluster",
            false,
        );
        for percent in 0..5 {
            bench.wait(Duration::from_secs(5));
            for service in ["api", "web"] {
                let (arguments, text) = (
                    format!(r#"{{"of":"{service}"}}"#),
                    format!("rollout of {service} is at {percent} of four replicas"),
                );
                assert_eq!(bench.call("status", &arguments, &text, false), Outcome::Quiet);
            }
        }
    }
}

#[test]
fn a_call_in_flight_that_tells_nothing_does_not_end_the_loop_of_its_tool() {
    let mut bench = Bench::new();
    let (admitted, click) = (bench.now, bench.key("write-mouse", r#"{"x":-1}"#));
    let refused = bench.until_refused(80, |bench, number| {
        bench.call("write-mouse", &format!(r#"{{"x":{number}}}"#), "clicked", false);
        bench.call("write-mouse", r#"{"screenshot":true}"#, "the login page", false)
    });
    assert!(refused.is_some());
    assert_eq!(bench.settle(click, r#"{"x":-1}"#, "clicked", false, admitted, true), Outcome::Quiet);
    assert!(bench.call("write-mouse", r#"{"x":-2}"#, "clicked", false).is_refused());
}

#[test]
fn parallel_calls_are_one_round() {
    let mut bench = Bench::new();
    let admitted = bench.now;
    let key = bench.key("read", r#"{"path":"a"}"#);
    for _ in 0..16 {
        bench.wait(Duration::from_millis(1));
        let outcome = bench.settle(key, "{}", "no such file", true, admitted, false);
        assert_eq!(outcome, Outcome::Quiet);
    }
    assert!(!failure(&mut bench).is_refused());
}

#[test]
fn a_loop_in_parallel_is_a_loop() {
    let mut bench = Bench::new();
    let key = bench.key("read", r#"{"path":"a"}"#);
    let refused = (0..20).any(|_| {
        let admitted = bench.now;
        let refused = bench.loops.check(admitted, AGENT, Mode::Enforce, key).is_err();
        for _ in 0..16 {
            bench.wait(Duration::from_millis(20));
            bench.settle(key, "{}", "no such file", true, admitted, false);
        }
        bench.wait(Duration::from_millis(20));
        refused
    });
    assert!(refused);
}

#[test]
fn a_server_that_always_says_the_same_takes_only_its_own_tools_from_the_agent() {
    let mut bench = Bench::new();
    let refused = bench.until_refused(40, |bench, number| {
        bench.call("hostile", &format!(r#"{{"n":{number}}}"#), "no answer of this server ever tells anything", false)
    });
    assert!(refused.is_some());
    for number in 0..20 {
        assert_eq!(
            bench.call("honest", &format!(r#"{{"n":{number}}}"#), &format!("chapter {number}"), false),
            Outcome::Quiet
        );
    }
    for number in 0..20 {
        assert_eq!(bench.call("write", &format!(r#"{{"n":{number}}}"#), "OK", false), Outcome::Quiet);
    }
}

#[test]
fn starting_more_loops_is_no_way_out() {
    let mut bench = Bench::new();
    let fail = |bench: &mut Bench, tool: u32| bench.call(&format!("tool-{tool}"), "{}", "denied", true);
    // In turn, so that no back-off stops them before they are all refused for the cool-down.
    for _ in 0..8 {
        bench.wait(Duration::from_secs(10));
        for tool in 0..10 {
            fail(&mut bench, tool);
        }
    }
    for tool in 0..10 {
        assert!(fail(&mut bench, tool).is_refused(), "tool {tool}");
    }
}

#[test]
fn a_refused_principal_keeps_its_state_however_many_others_come() {
    let mut bench = Bench { loops: Loops::with_capacity(32), ..Bench::new() };
    assert!(bench.until_refused(100, |bench, _| failure(bench)).is_some());
    let key = bench.key("read", "{}");
    for other in 0..500 {
        let settled = Settled {
            key,
            result: bench.loops.failure("x"),
            admitted: bench.now,
            changes: false,
            polls: Polls::Limited,
        };
        bench.loops.settle(bench.now, &format!("other-{other}"), &bench.settings, &settled);
    }
    assert!(bench.loops.states.read().unwrap().len() <= 32);
    assert!(failure(&mut bench).is_refused());
}

#[test]
fn idle_states_are_dropped_first() {
    let mut bench = Bench { loops: Loops::with_capacity(4), ..Bench::new() };
    for other in ["a", "b", "c"] {
        bench.loops.state(bench.now, other);
    }
    bench.wait(LONGEST_WINDOW + Duration::from_secs(1));
    failure(&mut bench);
    bench.loops.state(bench.now, "d");
    assert_eq!(bench.loops.states.read().unwrap().len(), 2);
    assert!(bench.loops.states.read().unwrap().contains_key(AGENT));
}

#[test]
fn a_server_in_monitor_mode_takes_nothing_from_the_others() {
    let mut bench = Bench::new();
    bench.settings.mode = Mode::Monitor;
    assert!(bench.until_refused(100, |bench, _| failure(bench)).is_some(), "it is judged all the same");
    assert!(failure(&mut bench).is_refused());
    bench.settings.mode = Mode::Enforce;
    assert!(!failure(&mut bench).is_refused());
}

#[test]
fn every_kind_of_loop_has_a_text() {
    for kind in Kind::ALL {
        let (duration, wait) = (Duration::from_millis(41_200), Duration::from_secs(2));
        let evidence = Evidence { kind, count: 7, duration, wait, refused: false };
        let warning = evidence.warning("files", "read");
        assert!(warning.contains("\"read\" of server \"files\"") && warning.contains('7') && warning.contains("42 s"));
        let denial = evidence.denial("files", "read");
        assert_eq!(denial.retry_after, Some(wait));
        assert!(denial.text().contains("loop_detected") && denial.text().contains("Try again in 2 s."));
    }
}
