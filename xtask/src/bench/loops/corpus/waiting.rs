//! Honest waiting: agents that poll for something that takes its time.

use std::ops::Range;

use serde_json::{Value, json};

use super::super::trace::Trace;
use super::script::{Script, ok};

pub fn traces() -> Vec<Trace> {
    let run =
        |status: &str, conclusion: Value| json!({"id": 881, "status": status, "conclusion": conclusion}).to_string();
    let mut traces = Vec::new();
    for (name, pause) in [("every-10s", 9_800..10_200), ("every-30s", 29_500..30_500), ("every-3s", 2_900..3_100)] {
        traces.push(waits(
            &format!("ci-{name}"),
            "github/get_workflow_run",
            pause,
            30,
            &run("in_progress", Value::Null),
            &run("completed", json!("success")),
        ));
    }
    traces.extend([
        waits(
            "rollout",
            "kubernetes/rollout_status",
            4_900..5_200,
            26,
            "Waiting for deployment \"api\" rollout to finish: 1 of 3 updated replicas are available...",
            "deployment \"api\" successfully rolled out",
        ),
        waits(
            "pod",
            "kubernetes/kubectl_get",
            3_000..8_000,
            18,
            "api-7d9 0/1 ContainerCreating\nstatus: Pending",
            "api-7d9 1/1 Running",
        ),
        waits("inbox", "mail/list_messages", 58_000..62_000, 25, "[]", "[{\"from\":\"ann\",\"subject\":\"Approved\"}]"),
        waits("chat", "slack/slack_get_thread_replies", 20_000..25_000, 14, "No new replies", "bob: go ahead"),
        waits("import", "warehouse/get_job", 9_000..11_000, 40, "{\"state\":\"RUNNING\"}", "{\"state\":\"DONE\"}"),
        counts(),
        logs(),
        two_at_once(),
    ]);
    traces
}

fn waits(name: &str, tool: &str, pause: Range<u64>, polls: u32, before: &str, after: &str) -> Trace {
    let mut script = Script::new(format!("work-waits-for-{name}"));
    script.look_around(2);
    for _ in 0..polls {
        script.call(pause.clone(), tool, json!({"id": 881}), ok(before));
    }
    script.call(pause, tool, json!({"id": 881}), ok(after));
    script.look_around(2);
    script.ends_as_work()
}

/// Every result is another one.
fn counts() -> Trace {
    let mut script = Script::new("work-watches-a-counter");
    for percent in 0..60 {
        script.call(900..1300, "backup/get_progress", json!({"id": 4}), ok(format!("{percent} % copied")));
    }
    script.ends_as_work()
}

fn logs() -> Trace {
    let mut script = Script::new("work-follows-a-log");
    for line in 0..40 {
        let text = format!("{} GET /orders/{} 200", script.clock(), script.random.u32(100..999) + line);
        script.call(1800..2600, "kubernetes/get_logs", json!({"pod": "api-7d9", "tail": 1}), ok(text));
    }
    script.ends_as_work()
}

/// Waits for two things in turn; the results contain how long it has taken so far.
fn two_at_once() -> Trace {
    let mut script = Script::new("work-waits-for-two-jobs");
    for round in 0..20 {
        for (tool, id) in [("ci/get_build", 17), ("ci/get_deployment", 3)] {
            let text = format!("{{\"id\":{id},\"status\":\"running\",\"elapsed\":\"{}s\"}}", round * 12 + id);
            script.call(5_500..6_500, tool, json!({"id": id}), ok(text));
        }
    }
    script.ends_as_work()
}
