//! Tokens: none, another tenant's, rotated, expired, revoked.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use super::{acme, beta};
use crate::demo::agent::{self, Client, Era, Target, call};
use crate::demo::report::Step;
use crate::demo::stage::{Stage, unix_millis, until};

/// 401.
pub const NO_TOKEN: Step = Step {
    name: "no token",
    does: "acme's agent calls without a token",
    run: |stage| {
        let target = Target { token: None, ..acme(stage, "reader", "clock")? };
        unauthorized(stage, &target, "token_missing")
    },
};

/// 401.
pub const OTHER_TENANTS_TOKEN: Step = Step {
    name: "other tenant's token",
    does: "acme's agent calls acme's gateway with the token of beta's planner",
    run: |stage| {
        let target = Target { token: Some(stage.token("beta", "planner")?), ..acme(stage, "reader", "clock")? };
        // The key in its header is beta's, which acme's gateway has never seen.
        unauthorized(stage, &target, "token_")
    },
};

/// Both are good for a while.
pub const ROTATED: Step = Step {
    name: "rotation",
    does: "waits until the operator rotates the token of beta's planner by itself, and calls with both",
    run: |stage| {
        let before = beta(stage)?;
        let serial = serial(stage)?;
        until(Duration::from_secs(110), "the next token", || {
            let token = stage.token("beta", "planner")?;
            if Some(&token) == before.token.as_ref() { Err(anyhow!("the token has not changed")) } else { Ok(()) }
        })?;
        let after = beta(stage)?;
        for target in [&before, &after] {
            let arguments = json!({"timezone": "UTC"});
            let answer = call(stage, target, Era::Modern, "get_current_time", &arguments)?;
            answer.text().context("both tokens should be good in the overlap")?;
            stage.pay("beta", "planner", 2_000);
        }
        let now = self::serial(stage)?;
        if now <= serial {
            bail!("the serial in the status should have grown: {serial}, {now}");
        }
        Ok(format!("serial {serial} and serial {now} are both accepted"))
    },
};

/// 401.
pub const EXPIRED: Step = Step {
    name: "expired token",
    does: "waits until the token that was set aside has expired, and calls with it",
    run: |stage| {
        let target = Target { token: stage.early_token.clone(), ..beta(stage)? };
        let status = until(Duration::from_secs(150), "its expiry", || {
            let answer = agent::request(stage, &target, "tools/list", &json!({}))?;
            if answer["status"] == json!(401) { Ok(()) } else { Err(anyhow!("still accepted: {}", answer["status"])) }
        });
        status?;
        unauthorized(stage, &target, "token_expired")
    },
};

/// From the API server's answer to the first refusal.
pub const REVOKED: Step = Step {
    name: "revoked token",
    does: "sets revokeIssuedBefore of acme's writer while its token is in use, and times the first refusal",
    run: |stage| {
        let mut times = Times::default();
        for _ in 0..stage.trials {
            let target = acme(stage, "writer", "clock")?;
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let refusal = times.first_refusal(stage, &target, &json!({"spec": {"revokeIssuedBefore": now}}))?;
            if refusal["status"] != json!(401) {
                bail!("expected 401: {refusal}");
            }
            until(Duration::from_secs(20), "a new token that is good", || {
                accepted(stage, &acme(stage, "writer", "clock")?)
            })?;
        }
        Ok(format!("{}; a new token was issued each time", times.told()?))
    },
};

/// Any other change of policy takes the same way.
pub const SUSPENDED: Step = Step {
    name: "policy change",
    does: "suspends acme's writer while it calls, and times the first refusal",
    run: |stage| {
        let mut times = Times::default();
        for _ in 0..stage.trials {
            let target = acme(stage, "writer", "clock")?;
            let refusal = times.first_refusal(stage, &target, &json!({"spec": {"suspend": true}}))?;
            if refusal["reply"]["error"]["data"]["reason"] != json!("principal_suspended") {
                bail!("expected principal_suspended: {refusal}");
            }
            patch_writer(stage, &json!({"spec": {"suspend": false}}))?;
            until(Duration::from_secs(20), "the end of the suspension", || accepted(stage, &target))?;
        }
        times.told()
    },
};

/// How long changes took, in milliseconds: from when kubectl had the API server's answer, and from when kubectl was
/// started. The truth lies between the two.
#[derive(Default)]
struct Times {
    answered: Vec<f64>,
    begun: Vec<f64>,
}

impl Times {
    /// Patches the writer while its token is in use, and waits for the first refusal.
    fn first_refusal(&mut self, stage: &Stage, target: &Target, patch: &Value) -> Result<Value> {
        let task = json!({"do": "untilRefused", "forMs": 20_000});
        let mut client = Client::start(stage, target.from, Some(target), task)?;
        let first = client.next()?;
        if first["ready"] != json!(true) {
            bail!("the token should be good before: {first}");
        }
        let begun = unix_millis();
        patch_writer(stage, patch)?;
        let answered = unix_millis();
        let refusal = client.next()?;
        let Some(refused) = refusal["refusedAt"].as_f64() else { bail!("it was never refused: {refusal}") };
        self.answered.push((refused - answered).max(0.0));
        self.begun.push(refused - begun);
        Ok(refusal)
    }

    /// The figures; an error if one is over a second.
    fn told(&self) -> Result<String> {
        let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
        let (answered, begun) = (most(&self.answered), most(&self.begun));
        let told = format!(
            "refused {answered:.0} ms after kubectl had the API server's answer, {begun:.0} ms after it was started \
             (the slowest of {})",
            self.begun.len()
        );
        if answered > 1_000.0 {
            bail!("too late: {told}");
        }
        Ok(told)
    }
}

/// An error if the gateway refuses.
fn accepted(stage: &Stage, target: &Target) -> Result<()> {
    let answer = agent::request(stage, target, "tools/list", &json!({}))?;
    if answer["status"] == json!(200) && answer["reply"]["error"].is_null() {
        return Ok(());
    }
    Err(anyhow!("refused: {answer}"))
}

fn patch_writer(stage: &Stage, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    stage.kubectl(&["patch", "mcpprincipal", "writer", "-n", "acme", "--type=merge", "-p", &patch]).map(drop)
}

/// A request that is answered with 401 and a reason, by the Inspector and by our own client.
fn unauthorized(stage: &Stage, target: &Target, reason: &str) -> Result<String> {
    let inspector = agent::list_tools(stage, target, Era::Legacy)?;
    if inspector.exit == 0 {
        bail!("the Inspector was let in: {}", inspector.shown());
    }
    let answer = agent::request(stage, target, "tools/list", &json!({}))?;
    if answer["status"] != json!(401) {
        bail!("expected 401: {answer}");
    }
    let line = stage.audit(target.runtime, |line| {
        line["decision"] == json!("denied") && line["reason"].as_str().is_some_and(|found| found.starts_with(reason))
    })?;
    let said = answer["reply"]["error"]["message"].as_str().unwrap_or_default().to_owned();
    let code = inspector.error.as_ref().map_or(Value::Null, |error| error["code"].clone());
    Ok(format!(
        "401 {}: {said}\nthe Inspector: exit {}, {code}",
        line["reason"].as_str().unwrap_or("?"),
        inspector.exit
    ))
}

fn serial(stage: &Stage) -> Result<i64> {
    let principal = stage.kubectl_json(&["get", "mcpprincipal", "planner", "-n", "beta"])?;
    principal["status"]["credential"]["serial"].as_i64().context("the status has the credential's serial")
}
