//! How often, and for how much.

use anyhow::{Result, bail};
use serde_json::json;

use super::acme;
use crate::demo::agent::{Era, call};
use crate::demo::report::Step;
use crate::demo::stage::Stage;

/// Six calls a minute, one at a time.
pub const RATE: Step = Step {
    name: "rate limit",
    does: "acme's nightly, who may call 6 times a minute, calls three times in a row",
    run: |stage| {
        let mut said = Vec::new();
        for _ in 0..3 {
            said.push(paid_or_reason(stage, "nightly")?);
        }
        match said.iter().find(|said| said.starts_with("rate_limited")) {
            Some(refusal) if said.iter().any(|said| said == "allowed") => Ok(refusal.clone()),
            _ => bail!("expected an answer and then rate_limited: {}", said.join("; ")),
        }
    },
};

/// Five calls of a tenth of a cent.
pub const BUDGET: Step = Step {
    name: "budget exhausted",
    does: "acme's intern, who has 0.005 USD a month, asks for the time at 0.001 USD until it is spent",
    run: |stage| {
        for paid in 0..5 {
            let said = paid_or_reason(stage, "intern")?;
            if said != "allowed" {
                bail!("call {} of 5 should be paid for: {said}", paid + 1);
            }
        }
        let said = paid_or_reason(stage, "intern")?;
        if !said.starts_with("budget_exhausted") {
            bail!("the sixth call should be refused: {said}");
        }
        Ok(format!("5 calls answered, then {said}"))
    },
};

/// Asks for the time; `allowed`, or the refusal.
fn paid_or_reason(stage: &mut Stage, principal: &'static str) -> Result<String> {
    let target = acme(stage, principal, "clock")?;
    let answer = call(stage, &target, Era::Legacy, "get_current_time", &json!({"timezone": "UTC"}))?;
    if answer.text().is_ok() {
        stage.pay("acme", principal, 1_000);
        return Ok("allowed".to_owned());
    }
    let (reason, text) = answer.refusal()?;
    Ok(format!("{reason}: {text}"))
}
