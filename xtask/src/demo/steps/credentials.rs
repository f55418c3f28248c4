//! Tokens that are missing, of another tenant, rotated, expired or revoked, and the time that a revocation takes.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::{acme, beta};
use crate::demo::agent::{self, Client, Era, Target, call};
use crate::demo::report::Step;
use crate::demo::state::{Demo, unix_millis, until};

/// Calls without a token.
pub const NO_TOKEN: Step = Step {
    name: "no token",
    action: "acme's agent calls acme's gateway without a token.",
    purpose: "Being inside the cluster is not enough: every request needs a credential.",
    run: |demo| {
        let target = Target { token: None, ..acme(demo, "reader", "clock")? };
        unauthorized(demo, &target, "token_missing")
    },
};

/// Calls with a token of another tenant.
pub const OTHER_TENANTS_TOKEN: Step = Step {
    name: "other tenant's token",
    action: "acme's agent calls acme's gateway with the token of beta's planner.",
    purpose: "A token is valid for one tenant only.",
    run: |demo| {
        let target = Target { token: Some(demo.token("beta", "planner")?), ..acme(demo, "reader", "clock")? };
        // The token names beta's signing key, which acme's gateway does not know.
        unauthorized(demo, &target, "token_")
    },
};

/// Waits for a rotation and calls with both tokens.
pub const ROTATION: Step = Step {
    name: "rotation",
    action: "Wait until the operator rotates the token of beta's planner, then call with the old and the new token.",
    purpose: "Tokens rotate without anyone's help, and an overlap lets running agents switch without a failed call.",
    run: |demo| {
        let before = beta(demo)?;
        let serial = serial(demo)?;
        until(Duration::from_secs(110), "a new token", || {
            let token = demo.token("beta", "planner")?;
            if Some(&token) == before.token.as_ref() { Err(anyhow!("the token has not changed yet")) } else { Ok(()) }
        })?;
        let after = beta(demo)?;
        for target in [&before, &after] {
            let arguments = json!({"timezone": "UTC"});
            let answer = call(demo, target, Era::Modern, "get_current_time", &arguments)?;
            answer.text().context("both tokens should be accepted during the overlap")?;
            demo.record_charge("beta", "planner", 2_000);
        }
        let now = self::serial(demo)?;
        if now <= serial {
            bail!("the serial in the status should have increased, but went from {serial} to {now}");
        }
        Ok(format!("the tokens with serial {serial} and serial {now} are both accepted"))
    },
};

/// Calls with an expired token.
pub const EXPIRED_TOKEN: Step = Step {
    name: "expired token",
    action: "Wait until the token that was saved earlier has expired, then call with it.",
    purpose: "A leaked token is useless after its short lifetime.",
    run: |demo| {
        let target = Target { token: demo.early_token.clone(), ..beta(demo)? };
        let status = until(Duration::from_secs(150), "the token to expire", || {
            let answer = agent::request(demo, &target, "tools/list", &json!({}))?;
            if answer["status"] == json!(401) { Ok(()) } else { Err(anyhow!("still accepted: {}", answer["status"])) }
        });
        status?;
        unauthorized(demo, &target, "token_expired")
    },
};

/// Revokes a token and measures the time until the first refusal.
pub const REVOKED_TOKEN: Step = Step {
    name: "revoked token",
    action: "Set revokeIssuedBefore on acme's writer while its token is in use, and measure the time to the first \
             refusal.",
    purpose: "A leaked token can be revoked within a second.",
    run: |demo| {
        let mut times = Times::default();
        for _ in 0..demo.trials {
            let target = acme(demo, "writer", "clock")?;
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let refusal = times.first_refusal(demo, &target, &json!({"spec": {"revokeIssuedBefore": now}}))?;
            if refusal["status"] != json!(401) {
                bail!("expected status 401, got {refusal}");
            }
            until(Duration::from_secs(60), "a new token that is accepted", || {
                accepted(demo, &acme(demo, "writer", "clock")?)
            })?;
        }
        Ok(format!("{}; a new token was issued each time", times.summary()?))
    },
};

/// Suspends a principal and measures the time until the first refusal. Every policy change reaches the gateway this
/// way.
pub const POLICY_CHANGE: Step = Step {
    name: "policy change",
    action: "Suspend acme's writer while it calls, and measure the time to the first refusal.",
    purpose: "Policy changes take effect within a second, without restarting anything.",
    run: |demo| {
        let mut times = Times::default();
        for _ in 0..demo.trials {
            let target = acme(demo, "writer", "clock")?;
            let refusal = times.first_refusal(demo, &target, &json!({"spec": {"suspend": true}}))?;
            if refusal["reply"]["error"]["data"]["reason"] != json!("principal_suspended") {
                bail!("expected principal_suspended, got {refusal}");
            }
            patch_writer(demo, &json!({"spec": {"suspend": false}}))?;
            until(Duration::from_secs(60), "the end of the suspension", || accepted(demo, &target))?;
        }
        times.summary()
    },
};

/// Times from a change to the first refusal, in milliseconds. The API server stored the change at some time between the
/// start and the end of kubectl, so the real time is between the two figures.
#[derive(Default)]
struct Times {
    /// From the end of kubectl.
    since_end: Vec<f64>,
    /// From the start of kubectl.
    since_start: Vec<f64>,
}

impl Times {
    /// Patches the writer while its token is in use, and waits for the first refusal.
    fn first_refusal(&mut self, demo: &Demo, target: &Target, patch: &Value) -> Result<Value> {
        let task = json!({"task": "callUntilRefused", "durationMs": 20_000});
        let mut client = Client::start(demo, target.from, Some(target), task)?;
        let first = client.next_message()?;
        if first["ready"] != json!(true) {
            bail!("the token should be accepted before the change: {first}");
        }
        let start = unix_millis();
        patch_writer(demo, patch)?;
        let end = unix_millis();
        let refusal = client.next_message()?;
        let Some(refused) = refusal["refusedAt"].as_f64() else { bail!("no call was refused within 20 s: {refusal}") };
        self.since_end.push((refused - end).max(0.0));
        self.since_start.push(refused - start);
        Ok(refusal)
    }

    /// Returns the slowest times, or an error if a refusal came more than a second after the change.
    fn summary(&self) -> Result<String> {
        let slowest = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
        let (since_end, since_start) = (slowest(&self.since_end), slowest(&self.since_start));
        let text = format!(
            "refused {since_end:.0} ms after kubectl returned, {since_start:.0} ms after it started (slowest of {})",
            self.since_start.len()
        );
        if since_end > 1_000.0 {
            bail!("the change took more than a second: {text}");
        }
        Ok(text)
    }
}

/// Checks that the gateway accepts a request to `target`.
fn accepted(demo: &Demo, target: &Target) -> Result<()> {
    let answer = agent::request(demo, target, "tools/list", &json!({}))?;
    if answer["status"] == json!(200) && answer["reply"]["error"].is_null() {
        return Ok(());
    }
    Err(anyhow!("refused: {answer}"))
}

fn patch_writer(demo: &Demo, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    demo.kubectl(&["patch", "mcpprincipal", "writer", "-n", "acme", "--type=merge", "-p", &patch]).map(drop)
}

/// Checks that a request is refused with status 401 and a reason that starts with `reason`, for the Inspector and for
/// the demo's own client.
fn unauthorized(demo: &Demo, target: &Target, reason: &str) -> Result<String> {
    let inspector = agent::list_tools(demo, target, Era::Legacy)?;
    if inspector.exit == 0 {
        bail!("the Inspector should be refused, but got {}", inspector.shown());
    }
    let answer = agent::request(demo, target, "tools/list", &json!({}))?;
    if answer["status"] != json!(401) {
        bail!("expected status 401, got {answer}");
    }
    let message = answer["reply"]["error"]["message"].as_str().unwrap_or_default().to_owned();
    // The caller is told the reason that the audit line has.
    let line = demo.audit(target.runtime, |line| {
        let is_told = |found: &str| found.starts_with(reason) && message.contains(&format!("({found})"));
        line["decision"] == json!("denied") && line["reason"].as_str().is_some_and(is_told)
    })?;
    let code = inspector.error.as_ref().map_or(Value::Null, |error| error["code"].clone());
    Ok(format!(
        "401 {}: {message}\nthe Inspector exits with {} and error {code}",
        line["reason"].as_str().unwrap_or("?"),
        inspector.exit
    ))
}

fn serial(demo: &Demo) -> Result<i64> {
    let principal = demo.kubectl_json(&["get", "mcpprincipal", "planner", "-n", "beta"])?;
    principal["status"]["credential"]["serial"].as_i64().context("the status of the principal has no credential serial")
}
