//! Loops of calls that follow each other again and again: edit-test ping-pong, cycles, loops across servers.

use serde_json::{Value, json};

use super::super::trace::Trace;
use super::script::{Answer, Script, failed, ok};

type Step = (&'static str, Value, &'static str);

pub fn traces() -> Vec<Trace> {
    let mut traces = vec![
        ping_pong("flips-back", true, true),
        ping_pong("flips-back-exit-code-0", true, false),
        ping_pong("always-other-edits", false, true),
        ping_pong("always-other-edits-exit-code-0", false, false),
        nonce_servers(),
        neighbour(),
    ];
    for (name, pause, steps) in cycles() {
        let mut script = Script::new(format!("loop-cycle-{name}"));
        script.look_around(4);
        let from = script.next();
        for _ in 0..14 {
            for (tool, args, result) in &steps {
                script.call(pause.clone(), tool, args.clone(), ok(*result));
            }
        }
        traces.push(script.ends_as_loop(from));
    }
    traces
}

/// Cycles of two to four calls.
fn cycles() -> Vec<(&'static str, std::ops::Range<u64>, Vec<Step>)> {
    let read = ("filesystem/read_text_file", json!({"path": "/workspace/deploy.yaml"}), "replicas: 2\nimage: api:1.4");
    let search =
        ("filesystem/search_files", json!({"path": "/workspace", "pattern": "*.yaml"}), "/workspace/deploy.yaml");
    let pods = ("kubernetes/kubectl_get", json!({"resourceType": "pods"}), "api-7d9 1/1 CrashLoopBackOff");
    let describe =
        ("kubernetes/kubectl_describe", json!({"name": "api-7d9"}), "Last State: Terminated, Exit Code: 137");
    let issue = (
        "github/get_issue",
        json!({"issue_number": 71}),
        "{\"number\":71,\"title\":\"API restarts\",\"state\":\"open\"}",
    );
    let docs = (
        "docs/search_docs",
        json!({"query": "exit code 137"}),
        "Exit code 137: the container used more memory than its limit.",
    );
    let thread = ("slack/slack_get_thread_replies", json!({"thread_ts": "17"}), "ann: still broken?\nbob: looking");
    let quick = 1200..5000;
    vec![
        ("search-read", quick.clone(), vec![search.clone(), read.clone()]),
        ("pods-describe-docs", quick.clone(), vec![pods.clone(), describe.clone(), docs.clone()]),
        ("across-two-servers", quick.clone(), vec![issue.clone(), pods.clone()]),
        ("across-three-servers", quick.clone(), vec![issue.clone(), thread.clone(), pods.clone()]),
        ("across-four-servers", quick, vec![issue, thread.clone(), read.clone(), pods.clone()]),
        ("slow-across-servers", 45_000..110_000, vec![docs, pods]),
        ("slow-of-four", 60_000..90_000, vec![search, read, describe, thread]),
    ]
}

/// Edits and tests in turn; the test fails in the same way each time.
fn ping_pong(name: &str, flips: bool, exit_code: bool) -> Trace {
    let mut script = Script::new(format!("loop-edit-test-{name}"));
    script.look_around(5);
    let from = script.next();
    for round in 0..16 {
        let (old, new) = match (flips, round % 2) {
            (true, 0) => ("x >= 0".to_owned(), "x > 0".to_owned()),
            (true, _) => ("x > 0".to_owned(), "x >= 0".to_owned()),
            (false, _) => (format!("x > {round}"), format!("x > {}", round + 1)),
        };
        let diff = format!(
            "```diff\n--- /workspace/src/limit.py\n+++ /workspace/src/limit.py\n-    if {old}:\n+    if {new}:\n```"
        );
        let args = json!({"path": "/workspace/src/limit.py", "edits": [{"oldText": old, "newText": new}]});
        script.then("filesystem/edit_file", args, ok(diff));
        let text = format!(
            "FAILED tests/test_limit.py::test_zero - assert limit(0) == 1\n1 failed, 17 passed in {}",
            script.took()
        );
        let answer: Answer = if exit_code { failed(text) } else { ok(text) };
        script.then("shell/run_tests", json!({"path": "tests"}), answer);
    }
    script.ends_as_loop(from)
}

/// Two servers in turn; one puts a time into its results.
fn nonce_servers() -> Trace {
    let mut script = Script::new("loop-cycle-with-times");
    script.look_around(3);
    let from = script.next();
    for _ in 0..14 {
        let text = format!("{{\"checked_at\":\"{}\",\"replicas\":2,\"image\":\"api:1.3\"}}", script.clock());
        script.then("kubernetes/get_deployment", json!({"name": "api"}), ok(text));
        script.then("github/get_file_contents", json!({"path": "deploy.yaml"}), ok("image: api:1.4"));
    }
    script.ends_as_loop(from)
}

/// Another agent works on while one is in a loop.
fn neighbour() -> Trace {
    let mut script = Script::new("loop-beside-a-neighbour");
    script.look_around(2);
    script.by("acme/looping", 0);
    let from = script.next();
    for round in 0..20 {
        let at = script.next();
        script.then(
            "postgres/query",
            json!({"sql": "SELECT 1 FROM missing"}),
            failed("relation \"missing\" does not exist"),
        );
        script.by("acme/looping", at);
        let at = script.next();
        let row = format!("{round}, customer {round}, {}", script.random.u32(10..900));
        script.call(200..900, "postgres/query", json!({"sql": format!("SELECT * FROM c WHERE id = {round}")}), ok(row));
        script.by("acme/working", at);
    }
    script.ends_as_loop(from)
}
