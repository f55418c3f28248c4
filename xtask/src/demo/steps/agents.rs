//! Agents that make no progress: one that goes round in circles, and one that reports that it is stuck.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::acme;
use crate::demo::agent::{Client, Era, call};
use crate::demo::report::Step;
use crate::demo::state::{Demo, until};

const REPORT: &str = "/workspace/reports/q3.md";

/// Repeats a call whose result never changes, without the pauses that the gateway asks for.
pub const LOOP: Step = Step {
    name: "agent in a loop",
    action: "acme's writer reads the same report 12 times without pause, although it never changes. Then acme's reader \
             reads it.",
    purpose: "An agent that goes round in circles is warned and then stopped, with evidence; its neighbour works on.",
    run: |demo| {
        let params = json!({"name": "read_text_file", "arguments": {"path": REPORT, "head": 5}});
        let task = json!({"task": "repeat", "times": 12, "params": params});
        let target = acme(demo, "writer", "files")?;
        let answers = Client::run(demo, target.from, Some(&target), task)?;
        let results: Vec<&Value> =
            answers["answers"].as_array().into_iter().flatten().map(|answer| &answer["reply"]["result"]).collect();
        let allowed = results.iter().filter(|result| result["isError"] != json!(true) && result.is_object()).count();
        for _ in 0..allowed {
            demo.record_charge("acme", "writer", 1_000);
        }
        let denial = |result: &Value| result["_meta"]["mcp-fleet.dev/denial"]["reason"].clone();
        if !results.iter().any(|result| result["_meta"]["mcp-fleet.dev/warning"].is_object()) {
            bail!("no result has a warning: {answers}");
        }
        let Some(refusal) = results.iter().find(|result| denial(result) == json!("loop_detected")) else {
            bail!("no call was refused with loop_detected: {answers}");
        };
        let text = refusal["content"][0]["text"].as_str().unwrap_or_default();
        let answer = call(
            demo,
            &acme(demo, "reader", "files")?,
            Era::Modern,
            "read_text_file",
            &json!({"path": REPORT, "head": 5}),
        )?;
        answer.text().context("the neighbour should not be affected")?;
        demo.record_charge("acme", "reader", 1_000);
        Ok(format!("{allowed} of 12 calls allowed, then {text}"))
    },
};

/// Reports that an agent is stuck, and lets a person clear that.
pub const STUCK: Step = Step {
    name: "stuck agent",
    action: "acme's writer reports that it is stuck, calls, and calls again after a person has cleared the report.",
    purpose: "An agent can stop itself and call for a person, who sees why and lets it go on.",
    run: |demo| {
        let target = acme(demo, "writer", "clock")?;
        let reason = json!({"reason": "I do not know which report is meant."});
        call(demo, &target, Era::Modern, "fleet_report_stuck", &reason)?.text()?;
        let refusal = convert(demo)?.expect_refusal("reported_stuck")?;
        let event = until(Duration::from_secs(60), "the Event", || {
            let selector = "involvedObject.name=writer,reason=AgentStuck";
            let events = demo.kubectl_json(&["get", "events", "-n", "acme", "--field-selector", selector])?;
            let note = events["items"][0]["message"].as_str().map(str::to_owned);
            note.ok_or_else(|| anyhow!("there is no Event AgentStuck"))
        })?;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let annotation = format!("mcp-fleet.dev/clear-breakers={now}");
        demo.kubectl(&["annotate", "mcpprincipal", "writer", "-n", "acme", "--overwrite", &annotation])?;
        until(Duration::from_secs(60), "the end of the pause", || convert(demo)?.text())?;
        demo.record_charge("acme", "writer", 2_000);
        Ok(format!("{refusal}\nEvent: {event}"))
    },
};

fn convert(demo: &Demo) -> Result<crate::demo::agent::Response> {
    let arguments = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    call(demo, &acme(demo, "writer", "clock")?, Era::Legacy, "convert_time", &arguments)
}
