//! Limits: how often a principal may call, and how much it may spend.

use anyhow::{Result, bail};
use serde_json::json;

use super::acme;
use crate::demo::agent::{Era, call};
use crate::demo::report::Step;
use crate::demo::state::Demo;

/// Calls more often than the rate limit allows.
pub const RATE: Step = Step {
    name: "rate limit",
    action: "acme's nightly, which may call 6 times a minute, makes three calls in a row.",
    purpose: "An agent that calls in a loop is stopped, and learns when it may try again.",
    run: |demo| {
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            outcomes.push(ask_time(demo, "nightly")?);
        }
        match outcomes.iter().find(|outcome| outcome.starts_with("rate_limited")) {
            Some(refusal) if outcomes.iter().any(|outcome| outcome == "allowed") => Ok(refusal.clone()),
            _ => bail!("expected an allowed call and then rate_limited, got {}", outcomes.join("; ")),
        }
    },
};

/// Spends a budget of five calls at 0.001 USD each, and makes one more call.
pub const BUDGET: Step = Step {
    name: "budget exhausted",
    action: "acme's intern, which has a budget of 0.005 USD a month, makes calls for 0.001 USD each until it is spent.",
    purpose: "An agent cannot spend more than its budget, and learns when it resets.",
    run: |demo| {
        for paid in 0..5 {
            let outcome = ask_time(demo, "intern")?;
            if outcome != "allowed" {
                bail!("call {} of 5 should be allowed, but got {outcome}", paid + 1);
            }
        }
        let outcome = ask_time(demo, "intern")?;
        // The budget is for a month, and periods are in UTC.
        if !outcome.starts_with("budget_exhausted") || !outcome.contains("-01T00:00:00Z") {
            bail!("the sixth call should be refused with budget_exhausted until the next month, but got {outcome}");
        }
        Ok(format!("5 calls allowed, then {outcome}"))
    },
};

/// Asks acme's clock for the time. Returns `allowed`, or the reason and text of the refusal.
fn ask_time(demo: &mut Demo, principal: &'static str) -> Result<String> {
    let target = acme(demo, principal, "clock")?;
    let answer = call(demo, &target, Era::Legacy, "get_current_time", &json!({"timezone": "UTC"}))?;
    if answer.text().is_ok() {
        demo.record_charge("acme", principal, 1_000);
        return Ok("allowed".to_owned());
    }
    let (reason, text) = answer.refusal()?;
    Ok(format!("{reason}: {text}"))
}
